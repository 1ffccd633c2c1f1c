"""Geometry of boxes: where the parts of two layouts meet, and how a shape is cut into blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from realrl.layouts.layout import Part, Shape


class Cell(NamedTuple):
    """A range of a tensor that lies wholly inside every part of `held` and of `wanted`.

    `held` are parts of the source layout, `wanted` parts of the destination.
    """

    start: Shape
    stop: Shape
    held: tuple[Part, ...]
    wanted: tuple[Part, ...]


_Side = tuple[Part, bool]
"""A part, and whether it is wanted."""


def cells(held: Sequence[Part], wanted: Sequence[Part]) -> Iterator[Cell]:
    """Yield disjoint cells that together cover every part of `wanted`."""
    sides: list[_Side] = []
    for part in held:
        if part.numel:
            sides.append((part, False))
    for part in wanted:
        if part.numel:
            sides.append((part, True))
    if not sides:
        return

    first_part, _ = sides[0]
    num_dims = len(first_part.start)
    for start, stop, members in _sweep(sides, 0, num_dims):
        holding = []
        wanting = []
        for part, is_wanted in members:
            if is_wanted:
                wanting.append(part)
            else:
                holding.append(part)
        if wanting:
            yield Cell(start, stop, tuple(holding), tuple(wanting))


def _sweep(sides: list[_Side], dim: int, num_dims: int) -> Iterator[tuple[Shape, Shape, list[_Side]]]:
    """Yield the cells of `sides` in the dims from `dim` on: start, stop and the parts that contain the cell.

    The dim is cut wherever a part begins or ends. Each slab is then cut along the remaining dims. Only
    parts that overlap a slab are compared, so that thousands of disjoint parts are no trouble.
    """
    if dim == num_dims:
        if sides:
            yield (), (), sides
        return

    edges = set()
    for part, _ in sides:
        edges.add(part.start[dim])
        edges.add(part.stop[dim])
    bounds = sorted(edges)

    # Sorted in reverse, so that the next part to begin is popped from the end.
    waiting = sorted(sides, key=lambda side: side[0].start[dim], reverse=True)
    active: list[_Side] = []
    for low, high in pairwise(bounds):
        # Drop the parts that end before this slab, and add those that begin with it.
        active = [side for side in active if side[0].stop[dim] > low]
        while waiting and waiting[-1][0].start[dim] <= low:
            active.append(waiting.pop())

        for start, stop, members in _sweep(active, dim + 1, num_dims):
            cell_start = (low, *start)
            cell_stop = (high, *stop)
            yield cell_start, cell_stop, members


def split(shape: Shape, limit: int) -> Iterator[tuple[Shape, Shape]]:
    """Yield the offset and shape of blocks of at most `limit` elements that tile `shape`."""
    steps = _block_shape(shape, limit)
    ranges = []
    for size, step in zip(shape, steps, strict=True):
        ranges.append(range(0, size, step))

    for offset in product(*ranges):
        block = []
        for step, size, first in zip(steps, shape, offset):
            # The last block of a dim may be shorter.
            block.append(min(step, size - first))
        yield offset, tuple(block)


def _block_shape(shape: Shape, limit: int) -> list[int]:
    """Return the largest block of at most `limit` elements that is whole in the innermost dims."""
    steps = []
    inner = 1
    for size in reversed(shape):
        room = limit // inner
        step = max(1, min(size, room))
        steps.append(step)
        inner *= size
    steps.reverse()
    return steps


def boxes_of_range(shape: Shape, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    """Yield the offset and shape of boxes that cover the elements `[start, stop)` of a tensor, in order.

    Elements are counted in row-major order. A range of a matrix takes at most three boxes:

        . . . # #    the end of a row
        # # # # #    whole rows
        # # . . .    the beginning of a row
    """
    if start >= stop:
        return
    if not shape:
        yield (), ()
        return

    row = math.prod(shape[1:])
    first = -(-start // row)  # the first whole row: rounded up
    last = stop // row
    if first > last:
        yield from _within_row(shape, last, start, stop)
        return

    yield from _within_row(shape, first - 1, start, first * row)
    if first < last:
        inner = shape[1:]
        zeros = (0,) * len(inner)
        yield (first, *zeros), (last - first, *inner)
    yield from _within_row(shape, last, last * row, stop)


def _within_row(shape: Shape, index: int, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    """Yield the boxes of `[start, stop)`, which lies inside row `index`."""
    inner = shape[1:]
    before = index * math.prod(inner)
    first = start - before
    last = stop - before
    for inner_offset, inner_shape in boxes_of_range(inner, first, last):
        offset = (index, *inner_offset)
        box_shape = (1, *inner_shape)
        yield offset, box_shape
