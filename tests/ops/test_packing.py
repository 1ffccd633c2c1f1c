"""Packing's kernels and their twins against naive loops and brute force."""

from __future__ import annotations

from functools import partial
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops import kernels, packing
from realrl.ops.packing import (
    first_fit_decreasing,
    first_fit_decreasing_reference,
    karmarkar_karp,
    karmarkar_karp_reference,
)

FIRST_FITS = [first_fit_decreasing, first_fit_decreasing_reference]
DIFFERENCINGS = [karmarkar_karp, karmarkar_karp_reference]
LENGTHS = st.lists(st.one_of(st.integers(0, 6), st.integers(0, 1000)), max_size=60)
FEW = st.lists(st.integers(0, 12), min_size=1, max_size=8)


def sums(lengths: list[int], bins: list[int], num_bins: int) -> list[int]:
    return [sum(n for n, index in zip(lengths, bins) if index == b) for b in range(num_bins)]


def least_bins(lengths: list[int], budget: int) -> int:
    """The fewest bins, by trying every bin for every item."""
    reached = {()}
    for length in lengths:
        fuller = {
            tuple(sorted((*rooms[:i], rooms[i] - length, *rooms[i + 1 :])))
            for rooms in reached
            for i in range(len(rooms))
            if rooms[i] >= length
        }
        reached = fuller | {tuple(sorted((*rooms, budget - length))) for rooms in reached}
    return min(map(len, reached))


def least_largest_sum(lengths: list[int], num_bins: int) -> int:
    """The best that any sharing out gives, by trying every bin for every item."""
    reached = {(0,) * num_bins}
    for length in lengths:
        reached = {
            tuple(sorted((*loads[:i], loads[i] + length, *loads[i + 1 :])))
            for loads in reached
            for i in range(num_bins)
        }
    return min(map(max, reached))


def test_cpu_kernel_is_built():
    """Without it the tests below would compare the twins with themselves."""
    assert kernels.for_device(torch.device("cpu")) is not None


@pytest.mark.parametrize(
    "function", [partial(first_fit_decreasing, budget=5), partial(karmarkar_karp, num_bins=2)]
)
def test_without_the_kernels_the_twins_stand_in(function, monkeypatch):
    built = function([4, 1, 3, 2, 2])
    monkeypatch.setattr(packing.kernels, "cpu_kernels", lambda: None)
    assert function([4, 1, 3, 2, 2]) == built


@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(0, 1500))
def test_first_fit_is_the_naive_loop(lengths, budget):
    """Kernel and twin put every item where scanning all bins from the first puts it."""
    bins: list[list[int]] = []
    for item in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [b for b in bins if sum(lengths[i] for i in b) + lengths[item] <= budget]
        (fitting[0] if fitting else bins.append([]) or bins[-1]).append(item)
    expected = [sorted(b) for b in bins]
    assert [first_fit(lengths, budget) for first_fit in FIRST_FITS] == [expected] * 2


@settings(max_examples=200, deadline=None)
@given(FEW, st.integers(12, 30))
def test_first_fit_is_near_the_fewest_bins(lengths, budget):
    """Within the bound that is proved for it."""
    least = least_bins(lengths, budget)
    assert least <= len(first_fit_decreasing(lengths, budget)) <= (11 * least + 6) / 9


@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.integers(1, 70))
def test_differencing_is_even_and_whole(lengths, num_bins):
    """Kernel and twin agree; sums differ by at most the longest item; no bin is empty without need."""
    bins, twins = (differencing(lengths, num_bins) for differencing in DIFFERENCINGS)
    assert bins == twins and len(bins) == len(lengths)
    if lengths:
        loads = sums(lengths, bins, num_bins)
        assert max(loads) - min(loads) <= max(lengths)
        assert list(dict.fromkeys(bins)) == list(range(min(num_bins, len(lengths))))


@settings(max_examples=200, deadline=None)
@given(FEW, st.integers(2, 4))
def test_differencing_is_near_the_best(lengths, num_bins):
    """Within the bounds proved for the largest sum: 7/6 of the best for two bins, below 4/3 for more.

    Source: Fischetti & Martello 1987; Michiels, Korst, Aarts & van Leeuwen 2007.
    """
    best = least_largest_sum(lengths, num_bins)
    ratio = 7 / 6 if num_bins == 2 else 4 / 3 - 1 / (3 * num_bins)
    assert best <= max(sums(lengths, karmarkar_karp(lengths, num_bins), num_bins)) <= ratio * best + 1e-9


@pytest.mark.parametrize("differencing", DIFFERENCINGS)
def test_differencing_beats_the_longest_first(differencing):
    """Korf's example: 8, 7, 6, 5, 4 differ by 4 if the longest goes to the least loaded, by 2 so."""
    bins = differencing([8, 7, 6, 5, 4], 2)
    assert sorted(sums([8, 7, 6, 5, 4], bins, 2)) == [14, 16]


@pytest.mark.parametrize("differencing", DIFFERENCINGS)
def test_items_of_no_length_are_spread_too(differencing):
    """Empty items still cost a turn, and even beside long ones counts are evened where sums are equal."""
    assert sorted(differencing([0, 0, 0, 0], 2)) == [0, 0, 1, 1]
    assert sorted(differencing([5, 0, 5, 0], 2)) == [0, 0, 1, 1]


def test_an_item_longer_than_the_budget_goes_alone():
    """Even an item of no length is kept from it."""
    for first_fit in FIRST_FITS:
        assert first_fit([3, 11, 0, 7, 12], 10) == [[4], [1], [0, 2, 3]]


def test_large_lengths_are_packed_alike_and_nearly_full():
    """Twenty thousand lengths: the same bins from both, few of them, and even."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.empty(20_000).log_normal_(7.0, 1.0, generator=generator).clamp(1, 8192).int().tolist()
    bins, twins = (first_fit(lengths, 16384) for first_fit in FIRST_FITS)
    assert bins == twins
    assert len(bins) <= ceil(sum(lengths) / 16384) + 1
    shares, twin_shares = (differencing(lengths, 64) for differencing in DIFFERENCINGS)
    assert shares == twin_shares
    loads = sums(lengths, shares, 64)
    assert max(loads) - min(loads) <= 64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: first_fit_decreasing([3, -1], 5), "must not be negative, got -1"),
        (lambda: first_fit_decreasing([3], -5), "budget must not be negative"),
        (lambda: karmarkar_karp([-2, 1], 2), "must not be negative, got -2"),
        (lambda: karmarkar_karp([1], 0), "num_bins must be at least 1"),
        (lambda: karmarkar_karp([1 << 61, 1 << 61], 2), "must sum to at most"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_largest_lengths_do_not_overflow():
    """The most that is let in, by the kernel as by the twin's unbounded integers."""
    most = ((1 << 63) - 1 - 3) // 4
    lengths = [most // 2, most // 4, most // 4]
    for num_bins in (1, 2, 3, 1 << 70):
        assert karmarkar_karp(lengths, num_bins) == karmarkar_karp_reference(lengths, num_bins)
    for budget in (most // 2, most, 1 << 70):
        assert first_fit_decreasing(lengths, budget) == first_fit_decreasing_reference(lengths, budget)
