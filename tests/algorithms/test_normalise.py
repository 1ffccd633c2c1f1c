"""Normalisation against plain float64 arithmetic, and over any split of the batch."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.algorithms.normalise import group_relative, masked_normalise
from tests.algorithms.splits import run_ranks


def alone(x):
    """`reduce` of a single rank."""
    return x


def test_masked_normalise_agrees_with_statistics():
    """Masked elements get mean 0 and std 1, the others 0."""
    x = torch.randn(50, generator=torch.Generator().manual_seed(0)) * 3 + 100
    mask = torch.arange(50) % 3 != 0
    chosen = x[mask].double().tolist()
    mean, std = statistics.fmean(chosen), statistics.pstdev(chosen)
    expected = torch.tensor([(v - mean) / (std + 1e-5) for v in chosen])
    got = masked_normalise(x, mask, alone)
    torch.testing.assert_close(got[mask], expected, rtol=1e-5, atol=1e-6)
    assert (got[~mask] == 0).all()


def test_a_large_mean_costs_no_accuracy():
    """A sum of squares less a squared mean would lose every digit here."""
    x = torch.tensor([1e6, 1e6 + 1, 1e6 + 2])
    got = masked_normalise(x, torch.ones(3, dtype=torch.bool), alone)
    torch.testing.assert_close(got, torch.tensor([-1.5, 0.0, 1.5]).mul(0.8164966), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mask", [[False] * 3, [True, False, False], [True] * 3])
def test_nothing_to_tell_apart_gives_zero(mask):
    """No element, one, or equal ones: 0, and no nan."""
    x = torch.full((3,), 0.1)
    assert masked_normalise(x, torch.tensor(mask), alone).abs().max() < 1e-6


def test_what_is_masked_out_may_be_nan():
    """Positions that no one computed have no say."""
    x, mask = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([True, False, True])
    torch.testing.assert_close(
        masked_normalise(x, mask, alone), torch.tensor([-1.0, 0.0, 1.0]), rtol=1e-4, atol=1e-4
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 16), cuts=st.lists(st.integers(0, 40), min_size=1, max_size=3))
def test_masked_normalise_over_any_split(seed, cuts):
    """Ranks with any share of the batch, an empty one included, give what one rank gives."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, generator=generator)
    mask = torch.rand(40, generator=generator) < 0.6
    bounds = [0, *sorted(cuts), 40]
    parts = [slice(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
    split = run_ranks(
        len(parts), lambda rank, reduce: masked_normalise(x[parts[rank]], mask[parts[rank]], reduce)
    )
    torch.testing.assert_close(torch.cat(split), masked_normalise(x, mask, alone), rtol=1e-6, atol=1e-7)


def group_loop(rewards, groups, counts, scale, baseline, sample_std):
    """Group by group with the statistics module."""
    rows = list(zip(rewards, groups, counts, strict=True))
    members = {g: [r for r, h, is_in in rows if h == g and is_in] for g in groups}
    centred = [reward - statistics.fmean(members[group]) for reward, group, is_in in rows if is_in]
    degrees = max(1, len(centred) - sample_std)
    batch_std = math.sqrt(math.fsum(x * x for x in centred) / degrees)
    advantages = []
    for reward, group, is_in in rows:
        own = members[group]
        if not is_in or statistics.pstdev(own) == 0:
            advantages.append(0.0)
            continue
        others = (math.fsum(own) - reward) / (len(own) - 1)
        taken_off = others if baseline == "leave_one_out" else statistics.fmean(own)
        group_std = statistics.stdev(own) if sample_std else statistics.pstdev(own)
        divisor = {"none": 1.0, "group_std": group_std, "batch_std": batch_std}[scale]
        advantages.append((reward - taken_off) / divisor)
    return torch.tensor(advantages, dtype=torch.float32)


@settings(max_examples=80, deadline=None)
@given(
    samples=st.lists(
        st.tuples(
            st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.1, 5.0]), st.sampled_from([True, True, False])
        ),
        max_size=24,
    ),
    num_ranks=st.integers(1, 3),
    scale=st.sampled_from(["none", "group_std", "batch_std"]),
    sample_std=st.booleans(),
    baseline=st.sampled_from(["group_mean", "leave_one_out"]),
    seed=st.integers(0, 1 << 16),
)
def test_group_relative_over_any_split(samples, num_ranks, scale, sample_std, baseline, seed):
    """Groups spread over ranks in any way, absent groups and samples that do not count, give the loop's
    advantages."""
    groups = torch.tensor([g for g, *_ in samples], dtype=torch.int64)
    rewards = torch.tensor([r for _, r, _ in samples])
    counts = torch.tensor([is_in for *_, is_in in samples], dtype=torch.bool)
    owner = torch.randint(num_ranks, (len(samples),), generator=torch.Generator().manual_seed(seed))
    options = {"scale": scale, "sample_std": sample_std, "baseline": baseline}

    def work(rank, reduce):
        mine = owner == rank
        return group_relative(rewards[mine], groups[mine], 5, reduce, counts=counts[mine], **options)

    got = torch.full((len(samples),), float("nan"))
    for rank, part in enumerate(run_ranks(num_ranks, work)):
        got[owner == rank] = part
    expected = group_loop(rewards.tolist(), groups.tolist(), counts.tolist(), **options)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_what_does_not_count_may_be_nan():
    """Its reward is not looked at."""
    rewards, groups = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([0, 0, 0])
    counts = torch.tensor([True, False, True])
    assert group_relative(rewards, groups, 1, alone, counts=counts).tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("scale", ["none", "group_std", "batch_std"])
def test_groups_without_a_difference_get_exactly_zero(scale):
    """One sample alone, and equal rewards whose mean is rounded."""
    rewards, groups = torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.tensor([0, 1, 1, 1])
    assert torch.equal(group_relative(rewards, groups, 2, alone, scale=scale), torch.zeros(4))
