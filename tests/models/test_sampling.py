"""Sampling against a plain loop over each row's distribution."""

from __future__ import annotations

import torch

from realrl.api.config import GenerationConfig
from realrl.models.sampling import draw, uniforms


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
    numbers = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    for config in (
        GenerationConfig(),
        GenerationConfig(temperature=0.5),
        GenerationConfig(top_k=3),
        GenerationConfig(top_p=0.8),
        GenerationConfig(temperature=1.5, top_k=6, top_p=0.7),
    ):
        tokens = draw(logits.expand(len(numbers), -1), numbers, config)
        found = torch.bincount(tokens, minlength=11) / len(numbers)
        expected = torch.zeros(11)
        for token, probability in kept(logits.tolist(), config).items():
            expected[token] = probability
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_nucleus_may_be_small_or_most_of_the_vocabulary():
    """A row with one likely token beside one where most are about as likely."""
    config = GenerationConfig(top_p=0.9, temperature=0.8)
    logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(1)) * torch.tensor([[6.0], [0.1]])
    numbers = (torch.arange(4_000, dtype=torch.float64) + 0.5) / 4_000
    for row in logits:
        pair = torch.stack((row, logits[0])).repeat_interleave(len(numbers) // 2, dim=0)
        found = set(draw(pair, numbers, config)[: len(numbers) // 2].tolist())
        allowed = kept(row.tolist(), config)
        assert found <= set(allowed)
        # Numbers below a half: the tokens before that place in the row's distribution.
        tokens = sorted(allowed)
        mass = torch.tensor([allowed[t] for t in tokens], dtype=torch.float64).cumsum(0)
        assert max(found) == tokens[int(torch.searchsorted(mass, numbers[len(numbers) // 2 - 1]))]


def test_greedy_takes_the_largest():
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    assert draw(logits, torch.zeros(2), GenerationConfig(temperature=0.0)).tolist() == [1, 0]


def test_barred_tokens_are_not_drawn_in_their_rows():
    """Row 1 may not have token 2, which is all but certain; row 0 may."""
    logits = torch.zeros(2, 4).index_fill(1, torch.tensor([2]), 20.0)
    numbers = torch.full((2,), 0.5, dtype=torch.float64)
    found = draw(logits, numbers, GenerationConfig(), barred=(torch.tensor([False, True]), torch.tensor([2])))
    assert found[0] == 2 and found[1] != 2
    assert logits.tolist() == [[0, 0, 20, 0]] * 2, "the logits are as they were"


def split_mix(seed: int, position: int) -> float:
    """SplitMix64 in Python's integers, number by number."""
    mask = (1 << 64) - 1
    state = (seed + (position + 1) * 0x9E3779B97F4A7C15) & mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return ((state ^ (state >> 31)) >> 11) * 2.0**-53


def test_a_samples_stream_is_its_own():
    """It depends on its seed and the place alone, and is the published generator's."""
    seeds = [0, 1, 12345678901234567, (1 << 63) - 1]
    positions = [0, 3, 7, 100_000]
    found = uniforms(torch.tensor(seeds), torch.tensor(positions)).tolist()
    assert found == [split_mix(*pair) for pair in zip(seeds, positions)]
    # The first number of the reference implementation for seed 0: 0xE220A8397B1DCDAF.
    assert found[0] == (0xE220A8397B1DCDAF >> 11) * 2.0**-53


def test_numbers_are_even():
    """Over seeds and over places: mean, and each tenth of [0, 1) as often as the others."""
    seeds, places = torch.arange(1000)[:, None], torch.arange(100)
    found = uniforms(seeds.expand(1000, 100).flatten(), places.repeat(1000))
    assert abs(float(found.mean()) - 0.5) < 0.003
    counts = torch.histc(found.float(), 10, 0, 1)
    assert counts.min() > 9700 and counts.max() < 10300
