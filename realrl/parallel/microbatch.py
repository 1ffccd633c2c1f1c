"""Cutting a batch into micro-batches by a token budget."""

from __future__ import annotations

from realrl.api.batch import PackedBatch


def microbatch_indices(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Group samples, in order, so that each group has at most `max_tokens` tokens.

    A longer sample goes alone.
    """
    groups: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if not groups or length > room:
            groups.append([])
            room = max_tokens
        groups[-1].append(index)
        room -= length
    return groups


def split(batch: PackedBatch, max_tokens: int) -> list[PackedBatch]:
    """The batch's micro-batches, in order."""
    return [batch.select(group) for group in microbatch_indices(batch.lengths, max_tokens)]
