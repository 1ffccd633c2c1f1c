"""Running moments against sums in plain Python, over any split of each batch."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.algorithms.running import RunningMoments
from tests.algorithms.splits import run_ranks

BATCHES = [[3.0, 5.0, 4.5], [100.0], [-2.0, 0.5, 7.0, 1.0]]


def alone(x):
    return x


def after(batches: list[list[float]], **options) -> RunningMoments:
    moments = RunningMoments.fresh()
    for batch in batches:
        x = torch.tensor([math.nan, *batch])
        moments = moments.seen(x, torch.tensor([False] + [True] * len(batch)), alone, **options)
    return moments


def test_moving_moments_are_those_of_all_that_was_seen():
    moments = after(BATCHES, kind="moving", beta=0.0)
    every = [x for batch in BATCHES for x in batch]
    assert moments.mean == pytest.approx(statistics.fmean(every))
    assert moments.std == pytest.approx(statistics.pstdev(every))


def test_exponential_moments_are_weighted_means_over_steps():
    """Each batch counts as one; from the first on, without a bias to zero."""
    weights = [0.9**2, 0.9, 1.0]
    mean = sum(w * statistics.fmean(b) for w, b in zip(weights, BATCHES)) / sum(weights)
    square = sum(w * statistics.fmean(x * x for x in b) for w, b in zip(weights, BATCHES)) / sum(weights)
    moments = after(BATCHES, kind="exponential", beta=0.9)
    assert (moments.mean, moments.std) == pytest.approx((mean, math.sqrt(square - mean**2)))
    assert after(BATCHES[:1], kind="exponential", beta=0.9999).mean == pytest.approx(
        statistics.fmean(BATCHES[0])
    )


@pytest.mark.parametrize("kind", ["moving", "exponential"])
def test_normalised_and_back(kind):
    moments, x = after(BATCHES, kind=kind, beta=0.9), torch.tensor([1.0, -3.0, 50.0])
    torch.testing.assert_close(moments.restored(moments.normalised(x)), x)
    fresh = RunningMoments.fresh()
    assert torch.equal(fresh.normalised(x), x) and torch.equal(fresh.restored(x), x)


def test_values_that_do_not_differ_are_not_blown_up():
    moments = after([[2.0, 2.0]], kind="moving", beta=0.0)
    assert moments.normalised(torch.tensor([2.0])).tolist() == [0.0] and moments.std > 1e-3


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=7, max_size=7), st.sampled_from(["moving", "exponential"]))
def test_it_does_not_matter_who_holds_what(owners, kind):
    x, owner = torch.arange(7.0).square(), torch.tensor(owners)

    def work(rank, reduce):
        mine = x[owner == rank]
        seen = RunningMoments.fresh().seen(mine, torch.ones_like(mine).bool(), reduce, kind=kind, beta=0.9)
        return seen.sums

    expected = RunningMoments.fresh().seen(x, torch.ones(7).bool(), alone, kind=kind, beta=0.9).sums
    for sums in run_ranks(3, work):
        torch.testing.assert_close(sums, expected)
