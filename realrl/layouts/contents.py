"""Cuts the content of a group, which is a sequence of blocks, at fractions of the whole.

A cut falls between tensors of a block, or between steps along the block's `cut_dim`. Example: a block of two
tensors and a block of one, with the cursors 0 (the beginning), a and b, and the end:

         block 0             block 1
    +--------+--------+-----------------+
    |tensor 0|tensor 1|    tensor 0     |
    +--------+--------+-----------------+
    0           a              b       end

From 0 to a are two pieces: tensor 0, and the first steps of tensor 1.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from realrl.layouts.layout import Shape
from realrl.layouts.pieces import Block, Piece

Cursor = tuple[int, int, int]
"""A place between elements: the indices of a block and of one of its tensors, and a step along `cut_dim`."""


class Content:
    """Blocks end to end."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        sizes = [block.numel for block in blocks]
        self._starts = list(accumulate(sizes, initial=0))

    @property
    def numel(self) -> int:
        """Return the number of elements of all blocks."""
        return self._starts[-1]

    @property
    def end(self) -> Cursor:
        """Return the cursor behind the last block."""
        return len(self._blocks), 0, 0

    def cursor(self, fraction: float) -> Cursor:
        """Return the place nearest to `fraction` of the content where a block can be cut."""
        nearest = round(fraction * self.numel)
        position = min(max(nearest, 0), self.numel)
        index = bisect_right(self._starts, position) - 1
        if index == len(self._blocks):
            return self.end

        block = self._blocks[index]
        shape = block.shape
        tensor_numel = math.prod(shape)
        position_in_block = position - self._starts[index]
        key, rest = divmod(position_in_block, tensor_numel)

        # A scalar has no dim to cut, so it is one step.
        num_steps = shape[block.cut_dim] if shape else 1
        step = round(rest * num_steps / tensor_numel)
        if step == num_steps:
            return index, key + 1, 0
        return index, key, step

    def between(self, low: Cursor, high: Cursor) -> Iterator[Piece]:
        """Yield the pieces from `low` to `high`."""
        low_index, *first = low
        high_index, *last = high
        stop_index = min(high_index + 1, len(self._blocks))
        for index in range(low_index, stop_index):
            block = self._blocks[index]
            if index == low_index:
                key, step = first
            else:
                key, step = 0, 0
            if index == high_index:
                last_key, last_step = last
            else:
                last_key, last_step = len(block.source_keys), 0
            yield from _pieces(block, key, step, last_key, last_step)


def _pieces(block: Block, key: int, step: int, last_key: int, last_step: int) -> Iterator[Piece]:
    """Yield the pieces of a block from one tensor and step to another.

    There are at most three: part of the first tensor, whole tensors, and part of the last tensor.
    """
    if key == last_key:
        if step < last_step:
            yield _part_of_tensor(block, key, step, last_step)
        return

    if step:
        yield _part_of_tensor(block, key, step, None)
        key += 1
    if key < last_key:
        yield Piece(block, key, last_key, block.cell.start, block.cell.stop)
    if last_step:
        yield _part_of_tensor(block, last_key, 0, last_step)


def _part_of_tensor(block: Block, key: int, low: int, high: int | None) -> Piece:
    """Return the steps `[low, high)` of the tensor at index `key`; without `high`, all from `low` on."""
    dim = block.cut_dim
    cell = block.cell
    base = cell.start[dim]
    start = _with_dim(cell.start, dim, base + low)
    if high is None:
        stop = cell.stop
    else:
        stop = _with_dim(cell.stop, dim, base + high)
    return Piece(block, key, key + 1, start, stop)


def _with_dim(corner: Shape, dim: int, value: int) -> Shape:
    """Return `corner` with `value` in `dim`."""
    before = corner[:dim]
    after = corner[dim + 1 :]
    return (*before, value, *after)
