"""Shares a batch out over data-parallel ranks, by tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from realrl.ops.packing import karmarkar_karp


def assign(lengths: Sequence[int], dp: int, *, num_minibatches: int = 1, group_size: int = 1) -> list[int]:
    """Return the dp_rank of each sample: the tokens of each mini-batch are balanced by Karmarkar-Karp.

    Sample i of N is in mini-batch `i * num_minibatches // N`. Samples of one group of `group_size` neighbours
    stay together. A rank has no sample of a mini-batch only if that has fewer groups than there are ranks.
    """
    dp_ranks = [0] * len(lengths)
    for groups in _groups_by_minibatch(len(lengths), num_minibatches, group_size):
        weights = []
        for group in groups:
            weights.append(sum(lengths[sample] for sample in group))
        for group, dp_rank in zip(groups, karmarkar_karp(weights, dp), strict=True):
            for sample in group:
                dp_ranks[sample] = dp_rank
    return dp_ranks


def _groups_by_minibatch(num_samples: int, num_minibatches: int, group_size: int) -> list[list[list[int]]]:
    """Return the samples of each group of each mini-batch, in order."""
    minibatches: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sample in range(num_samples):
        minibatch = minibatches[sample * num_minibatches // num_samples]
        minibatch[sample // group_size].append(sample)
    return [list(groups.values()) for groups in minibatches.values()]
