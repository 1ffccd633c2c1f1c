"""Shares a batch out over data-parallel ranks, by tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def assign(lengths: Sequence[int], dp: int, *, num_minibatches: int = 1, group_size: int = 1) -> list[int]:
    """The dp_rank of each sample: within each mini-batch, the longest first to the least loaded.

    Sample i of N is in mini-batch `i * num_minibatches // N`. Samples of one group of `group_size`
    neighbours stay together.
    Source: longest processing time first, Graham 1969.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i in range(len(lengths)):
        groups[i * num_minibatches // len(lengths), i // group_size].append(i)
    dp_ranks = [0] * len(lengths)
    for minibatch in range(num_minibatches):
        members = [group for key, group in groups.items() if key[0] == minibatch]
        weights = [sum(lengths[i] for i in group) for group in members]
        for group, dp_rank in zip(members, _least_loaded(weights, dp), strict=True):
            for i in group:
                dp_ranks[i] = dp_rank
    return dp_ranks


def _least_loaded(weights: Sequence[int], num_bins: int) -> list[int]:
    """A bin for each weight; ties go to the bin with fewer members, so that none stays empty without need."""
    load = [(0, 0, index) for index in range(num_bins)]
    bins = [0] * len(weights)
    for item in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        total, count, index = min(load)
        bins[item] = index
        load[index] = (total + weights[item], count + 1, index)
    return bins
