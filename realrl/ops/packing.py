"""Items of whole lengths, put into bins: as few as hold them, or as even as they can be.

An item is whatever must stay together: a sample, or the samples of one prompt. The kernels and their twins
give the same bins, ties included: the items' order decides between equal lengths. Both make O(n log n)
comparisons for n items; to keep partitions sorted, differencing also shifts up to `num_bins` sums an item.
"""

from __future__ import annotations

from bisect import insort_right
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import kernels

_CLOSED = -1


def first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of at most `budget`: the longest item first, each into the first bin that has room for it.

    A longer item goes alone. Bins come in the order in which they were opened, each with its items in order.
    Raises:
        ValueError: a negative length or budget, or lengths that 64 bits do not hold.
    Source: Johnson 1973; at most 11/9 of the fewest bins, and 6/9 of one more (Dósa 2007).
    """
    _check(lengths)
    if budget < 0:
        raise ValueError(f"packing: the budget must not be negative, got {budget}")
    kernel = kernels.cpu_kernels()
    if kernel is None:
        return first_fit_decreasing_reference(lengths, budget)
    return _gathered(_by_kernel(kernel.first_fit_decreasing, lengths, min(budget, _largest(len(lengths)))))


def karmarkar_karp(lengths: Sequence[int], num_bins: int) -> list[int]:
    """The bin of each item, of `num_bins` whose sums are near each other: the largest differencing method.

    The two partitions whose sums differ most become one, the largest part of one with the smallest of the
    other, until one is left. No two sums differ by more than the longest item. Among equal sums it evens the
    number of items, so that no bin stays empty without need. Bins are numbered by their first item.
    Raises:
        ValueError: a negative length, no bins, or lengths that 64 bits do not hold.
    Source: Karmarkar & Karp 1982; for more than two bins, Korf 1998.
    """
    _check(lengths)
    if num_bins < 1:
        raise ValueError(f"packing: num_bins must be at least 1, got {num_bins}")
    kernel = kernels.cpu_kernels()
    if kernel is None:
        return karmarkar_karp_reference(lengths, num_bins)
    # More bins than items only add empty ones.
    return _by_kernel(kernel.karmarkar_karp, lengths, min(num_bins, max(len(lengths), 1)))


def first_fit_decreasing_reference(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The kernel's twin."""
    rooms, bins, num_open = _Rooms(len(lengths), budget), [0] * len(lengths), 0
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # Those that are too long come first, so the next bin is the one after the last.
        alone = lengths[item] > budget
        index = num_open if alone else rooms.first_with(lengths[item])
        rooms.set(index, _CLOSED if alone else rooms[index] - lengths[item])
        bins[item], num_open = index, max(num_open, index + 1)
    return _gathered(bins)


def karmarkar_karp_reference(lengths: Sequence[int], num_bins: int) -> list[int]:
    """The kernel's twin."""
    if not lengths:
        return []
    numbers = count()
    partitions = []
    for item, length in enumerate(lengths):
        # Lengths first, and among equal ones the number of items.
        parts = [_Part(length * (len(lengths) + 1) + 1, [item])]
        partitions.append((-_difference(parts, num_bins), next(numbers), parts))
    heapify(partitions)
    while len(partitions) > 1:
        a, b = heappop(partitions)[2], heappop(partitions)[2]
        into, part = (b, a) if len(b) > len(a) else (a, b)
        _combine(into, part, num_bins)
        heappush(partitions, (-_difference(into, num_bins), next(numbers), into))
    return _numbered_by_first_item(partitions[0][2], len(lengths))


class _Rooms:
    """The room left in each bin, in the leaves of a tree whose inner nodes hold the larger of two children.

    Bins that are not open yet have all their room, so the first that fits is at worst the next to open.
    """

    def __init__(self, num_bins: int, budget: int) -> None:
        self._leaves = 1 << max(num_bins - 1, 0).bit_length()
        self._most = [budget] * (2 * self._leaves)

    def first_with(self, room: int) -> int:
        node = 1
        while node < self._leaves:
            node *= 2
            if self._most[node] < room:
                node += 1
        return node - self._leaves

    def __getitem__(self, index: int) -> int:
        return self._most[self._leaves + index]

    def set(self, index: int, room: int) -> None:
        node, most = self._leaves + index, self._most
        most[node] = room
        while node := node // 2:
            most[node] = max(most[2 * node], most[2 * node + 1])


class _Part(NamedTuple):
    """Items that share a bin."""

    total: int
    items: list[int]


def _lightness(part: _Part) -> int:
    return -part.total


def _difference(parts: Sequence[_Part], num_bins: int) -> int:
    """Between the largest and the smallest part; those that are missing are empty."""
    return parts[0].total - (parts[-1].total if len(parts) == num_bins else 0)


def _combine(into: list[_Part], other: Sequence[_Part], num_bins: int) -> None:
    """The largest of one with the smallest of the other, and so on; both are in falling order."""
    kept = min(len(into), num_bins - len(other))
    # An empty bin of `into` takes a part as it is, and those are the largest of `other`.
    as_they_are = other[: num_bins - len(into)]
    joined = [
        _joined(part, other[num_bins - 1 - place]) for place, part in enumerate(into[kept:], start=kept)
    ]
    del into[kept:]
    for part in sorted((*joined, *as_they_are), key=_lightness):
        insort_right(into, part, key=_lightness)


def _joined(a: _Part, b: _Part) -> _Part:
    """The longer list takes in the shorter, so that no item moves more than log n times."""
    longer, shorter = (a.items, b.items) if len(a.items) > len(b.items) else (b.items, a.items)
    longer.extend(shorter)
    return _Part(a.total + b.total, longer)


def _numbered_by_first_item(parts: Sequence[_Part], num_items: int) -> list[int]:
    bins = [0] * num_items
    for number, part in enumerate(sorted(parts, key=lambda part: min(part.items))):
        for item in part.items:
            bins[item] = number
    return bins


def _gathered(bins: Sequence[int]) -> list[list[int]]:
    gathered: list[list[int]] = [[] for _ in range(max(bins, default=-1) + 1)]
    for item, index in enumerate(bins):
        gathered[index].append(item)
    return gathered


def _by_kernel(
    kernel: Callable[[Tensor, int, Tensor], None], lengths: Sequence[int], limit: int
) -> list[int]:
    items = torch.tensor(lengths, dtype=torch.int64)
    bins = torch.empty_like(items)
    kernel(items, limit, bins)
    return bins.tolist()


def _check(lengths: Sequence[int]) -> None:
    if min(lengths, default=0) < 0:
        raise ValueError(f"packing: lengths must not be negative, got {min(lengths)}")
    if sum(lengths) > (most := _largest(len(lengths))):
        raise ValueError(f"packing: {len(lengths)} lengths must sum to at most {most}, got {sum(lengths)}")


def _largest(num_items: int) -> int:
    """The largest sum that leaves room beside it for the number of items, in 63 bits."""
    return ((1 << 63) - 1 - num_items) // (num_items + 1)
