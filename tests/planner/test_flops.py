"""Counted operations against PyTorch's own counter, on transformers' models."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from realrl.models.registry import read_decoder_config
from realrl.planner.flops import decode_flops, forward_flops, layer_parameters, train_flops
from tests.models.families import ONE_EACH, reference_model, tiny_model


@pytest.mark.parametrize("row", ONE_EACH)
def test_a_models_products(row, tmp_path):
    """transformers computes every pair of tokens, masked or not; what is left is ours exactly."""
    config, model = read_decoder_config(tiny_model(tmp_path, row)), reference_model(tmp_path)
    length = 16
    with FlopCounterMode(display=False) as counter:
        model(torch.arange(3, 3 + length)[None])
    every_pair = 4 * length**2 * config.num_layers * config.num_heads * config.head_dim
    ours = forward_flops(config, [length], length)
    seen = config.num_heads * config.head_dim * 4 * sum(
        sum(min(t + 1, config.window(layer) or length) for t in range(length))
        for layer in range(config.num_layers)
    )  # fmt: skip
    assert counter.get_total_flops() == ours - seen + every_pair


def test_training_and_decoding_add_up(tmp_path):
    """Token by token, decoding is a forward pass with logits for every token."""
    config = read_decoder_config(tiny_model(tmp_path, "gemma2"))
    assert sum(decode_flops(config, t + 1) for t in range(20)) == forward_flops(config, [20], 20)
    assert train_flops(config, [20], 5) == 3 * forward_flops(config, [20], 5)
    assert layer_parameters(config) == 32 * (8 + 2 + 2 + 8) * 8 + 32 * 3 * 48
