"""Shares a batch out over data-parallel ranks, by tokens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from realrl.ops.packing import karmarkar_karp


def assign(lengths: Sequence[int], dp: int, *, num_minibatches: int = 1, group_size: int = 1) -> list[int]:
    """The dp_rank of each sample: each mini-batch is shared out by tokens, by Karmarkar-Karp.

    Sample i of N is in mini-batch `i * num_minibatches // N`. Samples of one group of `group_size`
    neighbours stay together. A rank goes without a sample of a mini-batch only if that has fewer groups
    than there are ranks.
    """
    minibatches: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for i in range(len(lengths)):
        minibatches[i * num_minibatches // len(lengths)][i // group_size].append(i)
    dp_ranks = [0] * len(lengths)
    for groups in minibatches.values():
        weights = [sum(lengths[i] for i in group) for group in groups.values()]
        for group, dp_rank in zip(groups.values(), karmarkar_karp(weights, dp), strict=True):
            for i in group:
                dp_ranks[i] = dp_rank
    return dp_ranks
