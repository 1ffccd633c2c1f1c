"""Bin packing of items with integer lengths: into few bins, or into bins of similar sums.

An item is one sample, or samples that must stay together, such as those of one prompt. The kernels and the
functions in Python return the same bins. Ties between equal lengths are resolved by the items' order. Both
need O(n log n) comparisons for n items. Differencing also moves up to `num_bins` sums per item, to keep
partitions sorted.
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
    """Return bins of at most `budget`: each item, longest first, goes into the first bin with room for it.

    An item longer than the budget gets its own bin. Bins are in the order in which they were opened, and the
    items of a bin are in ascending order.

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
    limit = min(budget, _largest(len(lengths)))
    bins = _by_kernel(kernel.first_fit_decreasing, lengths, limit)
    return _gathered(bins)


def karmarkar_karp(lengths: Sequence[int], num_bins: int) -> list[int]:
    """Return the bin of each item so that `num_bins` bins have similar sums, by largest differencing.

    The method repeatedly merges the two partitions with the largest differences, the largest part of one with
    the smallest of the other, until one partition is left. No two sums differ by more than the longest item.
    Among equal sums, the method balances the number of items, so that a bin is empty only if there are fewer
    items than bins. Bins are numbered by their first item.

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
    # More bins than items would only be empty.
    most = max(len(lengths), 1)
    return _by_kernel(kernel.karmarkar_karp, lengths, min(num_bins, most))


def first_fit_decreasing_reference(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Compute `first_fit_decreasing` in Python."""
    num_items = len(lengths)
    rooms = _Rooms(num_items, budget)
    bins = [0] * num_items
    num_open = 0
    longest_first = sorted(range(num_items), key=lambda item: -lengths[item])
    for item in longest_first:
        length = lengths[item]
        if length > budget:
            # Items that are too long come first, so every open bin is closed and the next bin is free.
            index = num_open
            rooms.set(index, _CLOSED)
        else:
            index = rooms.first_with(length)
            room_left = rooms[index] - length
            rooms.set(index, room_left)

        bins[item] = index
        num_open = max(num_open, index + 1)
    return _gathered(bins)


def karmarkar_karp_reference(lengths: Sequence[int], num_bins: int) -> list[int]:
    """Compute `karmarkar_karp` in Python."""
    if not lengths:
        return []
    # The heap compares differences, then these numbers, and so never the partitions themselves.
    numbers = count()
    partitions = []
    for item, length in enumerate(lengths):
        # The sum orders parts by length, and equal lengths by the number of items.
        total = length * (len(lengths) + 1) + 1
        parts = [_Part(total, [item])]
        difference = _difference(parts, num_bins)
        partitions.append((-difference, next(numbers), parts))

    heapify(partitions)
    while len(partitions) > 1:
        _, _, into = heappop(partitions)
        _, _, part = heappop(partitions)
        if len(part) > len(into):
            into, part = part, into

        _combine(into, part, num_bins)
        difference = _difference(into, num_bins)
        heappush(partitions, (-difference, next(numbers), into))

    _, _, parts = partitions[0]
    return _numbered_by_first_item(parts, len(lengths))


class _Rooms:
    """The room left in each bin, as a tree: leaves are bins, an inner node is the maximum of its children.

    Unopened bins have their full room, so the search always finds a bin: at worst the next one to open.
    """

    def __init__(self, num_bins: int, budget: int) -> None:
        self._leaves = 1 << max(num_bins - 1, 0).bit_length()
        self._most = [budget] * (2 * self._leaves)

    def first_with(self, room: int) -> int:
        """Return the first bin that has at least this room."""
        node = 1
        while node < self._leaves:
            node *= 2
            if self._most[node] < room:
                node += 1
        return node - self._leaves

    def __getitem__(self, index: int) -> int:
        return self._most[self._leaves + index]

    def set(self, index: int, room: int) -> None:
        """Set the room of a bin."""
        node = self._leaves + index
        most = self._most
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
    """Return the difference of the largest and the smallest part; missing parts are empty."""
    smallest = parts[-1].total if len(parts) == num_bins else 0
    return parts[0].total - smallest


def _combine(into: list[_Part], other: Sequence[_Part], num_bins: int) -> None:
    """Merge the largest part of one with the smallest of the other, and so on; both descend."""
    kept = min(len(into), num_bins - len(other))
    # The largest parts of `other` meet empty bins of `into`, and stay as they are.
    added = []
    for place in range(kept, len(into)):
        part = other[num_bins - 1 - place]
        added.append(_joined(into[place], part))

    num_kept_of_other = num_bins - len(into)
    added.extend(other[:num_kept_of_other])
    del into[kept:]
    for part in sorted(added, key=_lightness):
        insort_right(into, part, key=_lightness)


def _joined(a: _Part, b: _Part) -> _Part:
    """Join two parts by extending the longer list, so that no item moves more than log n times."""
    if len(a.items) > len(b.items):
        longer, shorter = a.items, b.items
    else:
        longer, shorter = b.items, a.items
    longer.extend(shorter)
    return _Part(a.total + b.total, longer)


def _numbered_by_first_item(parts: Sequence[_Part], num_items: int) -> list[int]:
    """Return the bin of each item."""
    bins = [0] * num_items
    by_first_item = sorted(parts, key=lambda part: min(part.items))
    for number, part in enumerate(by_first_item):
        for item in part.items:
            bins[item] = number
    return bins


def _gathered(bins: Sequence[int]) -> list[list[int]]:
    """Return the items of each bin."""
    num_bins = max(bins, default=-1) + 1
    gathered: list[list[int]] = [[] for _ in range(num_bins)]
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
    most = _largest(len(lengths))
    total = sum(lengths)
    if total > most:
        raise ValueError(f"packing: {len(lengths)} lengths must sum to at most {most}, got {total}")


def _largest(num_items: int) -> int:
    """Return the largest sum that fits into 63 bits together with the number of items."""
    largest = (1 << 63) - 1
    return (largest - num_items) // (num_items + 1)
