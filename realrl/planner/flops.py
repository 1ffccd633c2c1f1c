"""Counts the floating-point operations of a decoder.

A product of `[M, K]` and `[K, N]` counts as 2 M N K. Everything but products is left out, and so is
recomputation.
Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B (model FLOPs utilisation).
"""

from __future__ import annotations

from collections.abc import Sequence

from realrl.models.config import DecoderConfig

_PRODUCT_FLOPS = 2
"""A multiplication and an addition for each element of a matrix and each of its rows of input."""
_ATTENTION_FLOPS = 2 * _PRODUCT_FLOPS
"""The product of queries and keys, and that of probabilities and values."""


def layer_parameters(config: DecoderConfig) -> int:
    """Return the number of elements in the matrices of one layer."""
    # Queries and outputs have all heads, keys and values those of `num_kv_heads`.
    num_heads = 2 * config.num_heads + 2 * config.num_kv_heads
    attention_columns = num_heads * config.head_dim
    num_mlp_matrices = 3 if config.gated else 2
    mlp_columns = num_mlp_matrices * config.intermediate_size
    return config.hidden_size * (attention_columns + mlp_columns)


def forward_flops(config: DecoderConfig, lengths: Sequence[int], num_logits: int) -> float:
    """Return the operations of a forward pass over packed sequences with causal attention.

    `lengths` are the tokens of each sequence, `num_logits` counts the tokens that get logits.
    """
    num_tokens = sum(lengths)
    layers_elements = config.num_layers * layer_parameters(config)
    layers = _PRODUCT_FLOPS * num_tokens * layers_elements
    head_elements = config.hidden_size * config.vocab_size
    head = _PRODUCT_FLOPS * num_logits * head_elements

    num_pairs = 0
    for layer in range(config.num_layers):
        window = config.window(layer)
        for length in lengths:
            num_pairs += _attending_pairs(length, window)
    attention = _attention_flops(config, num_pairs)
    return layers + head + attention


def train_flops(config: DecoderConfig, lengths: Sequence[int], num_logits: int) -> float:
    """Return the operations of a forward pass and of the backward pass, which has twice as many."""
    return 3 * forward_flops(config, lengths, num_logits)


def decode_flops(config: DecoderConfig, context: int) -> float:
    """Return the operations for one new token that attends to `context` tokens, itself included."""
    num_pairs = 0
    for layer in range(config.num_layers):
        window = config.window(layer) or context
        num_pairs += min(context, window)

    layers_elements = config.num_layers * layer_parameters(config)
    head_elements = config.hidden_size * config.vocab_size
    num_elements = layers_elements + head_elements
    products = _PRODUCT_FLOPS * num_elements
    attention = _attention_flops(config, num_pairs)
    return products + attention


def _attention_flops(config: DecoderConfig, num_pairs: int) -> int:
    """Return the operations for `num_pairs` pairs of tokens, in all heads."""
    width = config.num_heads * config.head_dim
    return _ATTENTION_FLOPS * num_pairs * width


def _attending_pairs(length: int, window: int | None) -> int:
    """Return how many pairs of a token and one that it attends to a sequence has in one layer."""
    width = min(length, window or length)
    # The first `width` tokens attend to all before them and to themselves.
    growing = width * (width + 1) // 2
    full = (length - width) * width
    return growing + full
