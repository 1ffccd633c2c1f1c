"""Sampling against a plain loop over each row's distribution."""

from __future__ import annotations

import torch

from realrl.api.config import GenerationConfig
from realrl.models.sampling import sample, uniforms_of


def kept(logits: list[float], config: GenerationConfig) -> dict[int, float]:
    """Token to probability, by sorting and counting in plain Python."""
    weights = torch.tensor(logits, dtype=torch.float64).div(config.temperature).softmax(0).tolist()
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    if config.top_k:
        order = order[: config.top_k]
    total, nucleus, mass = sum(weights[i] for i in order), [], 0.0
    for token in order:
        if mass >= config.top_p * total:
            break
        nucleus.append(token)
        mass += weights[token]
    return {token: weights[token] / mass for token in nucleus}


def test_frequencies_are_the_truncated_distribution():
    """Evenly spread uniforms hit each kept token as often as it is likely, and no other."""
    logits = torch.randn(11, generator=torch.Generator().manual_seed(0)) * 2
    uniforms = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for config in (
        GenerationConfig(),
        GenerationConfig(temperature=0.5),
        GenerationConfig(top_k=3),
        GenerationConfig(top_p=0.8),
        GenerationConfig(temperature=1.5, top_k=6, top_p=0.7),
    ):
        tokens = sample(logits.expand(len(uniforms), -1), uniforms, config)
        found = torch.bincount(tokens, minlength=11) / len(uniforms)
        expected = torch.zeros(11)
        for token, probability in kept(logits.tolist(), config).items():
            expected[token] = probability
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_greedy_takes_the_largest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    assert sample(logits, torch.zeros(2), GenerationConfig(temperature=0.0)).tolist() == [1, 0]


def test_a_samples_stream_is_its_own():
    """Neither the other samples nor the number of tokens asked for changes a sample's numbers."""
    alone, among = uniforms_of(7, 3, [5], 4), uniforms_of(7, 3, [1, 5, 9], 8)
    assert torch.equal(alone[0], among[1, :4])
    assert not torch.equal(among[0], among[1])
    assert not torch.equal(alone, uniforms_of(7, 4, [5], 4))
    assert not torch.equal(alone, uniforms_of(8, 3, [5], 4))
