"""How many floating-point operations a decoder takes.

A product of `[M, K]` and `[K, N]` counts as 2 M N K; all but products is left out, as is recomputation.
Source: Chowdhery et al. 2022, arXiv:2204.02311, appendix B (model FLOPs utilisation).
"""

from __future__ import annotations

from collections.abc import Sequence

from realrl.models.config import DecoderConfig


def layer_parameters(config: DecoderConfig) -> int:
    """Elements of one layer's matrices."""
    heads = 2 * config.num_heads + 2 * config.num_kv_heads
    mlp = (3 if config.gated else 2) * config.intermediate_size
    return config.hidden_size * (heads * config.head_dim + mlp)


def forward_flops(config: DecoderConfig, lengths: Sequence[int], num_logits: int) -> float:
    """Of packed sequences whose tokens see themselves and those before; `num_logits` rows of logits."""
    tokens = sum(lengths)
    products = 2 * tokens * config.num_layers * layer_parameters(config)
    head = 2 * num_logits * config.hidden_size * config.vocab_size
    seen = sum(
        _pairs(length, config.window(layer)) for layer in range(config.num_layers) for length in lengths
    )
    return products + head + 4 * seen * config.num_heads * config.head_dim


def train_flops(config: DecoderConfig, lengths: Sequence[int], num_logits: int) -> float:
    """Forward, and twice that backward."""
    return 3 * forward_flops(config, lengths, num_logits)


def decode_flops(config: DecoderConfig, context: int) -> float:
    """Of one token that sees `context` tokens, itself included."""
    seen = sum(min(context, config.window(layer) or context) for layer in range(config.num_layers))
    products = config.num_layers * layer_parameters(config) + config.hidden_size * config.vocab_size
    return 2 * products + 4 * seen * config.num_heads * config.head_dim


def _pairs(length: int, window: int | None) -> int:
    """How many pairs of tokens see each other."""
    full = min(length, window or length)
    return full * (full + 1) // 2 + (length - full) * full
