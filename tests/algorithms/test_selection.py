"""What stands out, against sorting the whole batch, over any split of it."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.algorithms.selection import best_in_group, covariances, largest
from tests.algorithms.splits import run_ranks

NUMBERS = st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf])


def alone(x: torch.Tensor) -> torch.Tensor:
    return x


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(NUMBERS, max_size=30),
    share=st.sampled_from([0.0, 1e-9, 0.1, 0.2, 0.5, 1.0]),
    num_ranks=st.integers(1, 3),
    random=st.randoms(use_true_random=False),
)
def test_the_largest_over_any_split(values, share, num_ranks, random):
    """Those of a sorted list; what equals the least of them comes along."""
    owners = [random.randrange(num_ranks) for _ in values]

    def work(rank, reduce):
        mine = [value for value, owner in zip(values, owners) if owner == rank]
        return largest(torch.tensor(mine, dtype=torch.float32), share, reduce)

    found = iter([iter(part.tolist()) for part in run_ranks(num_ranks, work)])
    parts = list(found)
    got = [next(parts[owner]) for owner in owners]
    number = max(1, int(share * len(values))) if share else 0
    ranked = sorted(values, reverse=True)
    expected = [bool(number) and value >= ranked[number - 1] for value in values]
    assert got == expected


def test_covariances_add_up_to_the_covariance():
    """Of the whole batch, however it is split."""
    generator = torch.Generator().manual_seed(0)
    logprobs, advantages = torch.randn(2, 50, generator=generator)
    whole = covariances(logprobs, advantages, alone)
    expected = statistics.covariance(logprobs.tolist(), advantages.tolist()) * 49
    assert float(whole.double().sum()) == pytest.approx(expected, rel=1e-5)

    def work(rank, reduce):
        return covariances(logprobs[rank::2], advantages[rank::2], reduce)

    for rank, part in enumerate(run_ranks(2, work)):
        torch.testing.assert_close(part, whole[rank::2])


@settings(max_examples=100, deadline=None)
@given(
    rewards=st.lists(st.sampled_from([-1.5, 0.0, 0.5, 1.0]), min_size=12, max_size=12),
    counts=st.lists(st.booleans(), min_size=12, max_size=12),
    group_size=st.sampled_from([1, 3, 4]),
    random=st.randoms(use_true_random=False),
)
def test_the_best_of_each_group_over_any_split(rewards, counts, group_size, random):
    """By the largest reward; of equal ones the first; and none of a group where none counts."""
    owners = [random.randrange(2) for _ in rewards]

    def work(rank, reduce):
        mine = [number for number, owner in enumerate(owners) if owner == rank]
        own_rewards = torch.tensor([rewards[number] for number in mine])
        own_counts = torch.tensor([counts[number] for number in mine], dtype=torch.bool)
        return best_in_group(own_rewards, own_counts, mine, 12 // group_size, group_size, reduce)

    parts = [iter(part.tolist()) for part in run_ranks(2, work)]
    found = [next(parts[owner]) for owner in owners]
    expected = [False] * 12
    for start in range(0, 12, group_size):
        candidates = [number for number in range(start, start + group_size) if counts[number]]
        if candidates:
            expected[max(candidates, key=lambda number: (rewards[number], -number))] = True
    assert found == expected
