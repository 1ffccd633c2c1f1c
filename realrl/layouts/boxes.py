"""Geometry of boxes: where the parts of two layouts meet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from typing import NamedTuple

from realrl.layouts.layout import Part, Shape


class Cell(NamedTuple):
    """A range of a tensor that lies wholly in each of `held`, parts of the source layout, and of `wanted`."""

    start: Shape
    stop: Shape
    held: tuple[Part, ...]
    wanted: tuple[Part, ...]


def cells(held: Sequence[Part], wanted: Sequence[Part]) -> Iterator[Cell]:
    """Disjoint cells that cover all of `wanted`."""
    sides = [(part, False) for part in held if part.numel] + [(part, True) for part in wanted if part.numel]
    num_dims = len(sides[0][0].start) if sides else 0
    for start, stop, members in _swept(sides, 0, num_dims):
        if any(is_wanted for _, is_wanted in members):
            yield Cell(
                start,
                stop,
                tuple(part for part, is_wanted in members if not is_wanted),
                tuple(part for part, is_wanted in members if is_wanted),
            )


def _swept(sides: list, dim: int, num_dims: int) -> Iterator[tuple[Shape, Shape, list]]:
    """Cut along one dim wherever a part begins or ends, and each slab along the dims that are left."""
    if dim == num_dims:
        if sides:
            yield (), (), sides
        return
    bounds = sorted({edge for part, _ in sides for edge in (part.start[dim], part.stop[dim])})
    waiting = sorted(sides, key=lambda side: side[0].start[dim], reverse=True)
    active: list = []
    for low, high in pairwise(bounds):
        active = [side for side in active if side[0].stop[dim] > low]
        while waiting and waiting[-1][0].start[dim] <= low:
            active.append(waiting.pop())
        for start, stop, members in _swept(active, dim + 1, num_dims):
            yield (low, *start), (high, *stop), members


def split(shape: Shape, limit: int) -> Iterator[tuple[Shape, Shape]]:
    """Cut `shape` into blocks of at most `limit` elements: each one's offset and shape."""
    inner, steps = 1, []
    for size in reversed(shape):
        steps.append(max(1, min(size, limit // inner)))
        inner *= size
    steps.reverse()
    for offset in product(*(range(0, size, step) for size, step in zip(shape, steps, strict=True))):
        yield offset, tuple(min(step, size - o) for step, size, o in zip(steps, shape, offset))


def boxes_of_range(shape: Shape, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    """The elements `[start, stop)` of a tensor, counted row by row, as boxes in order: each one's offset and
    shape. A matrix's range is at most three.
    """
    if start >= stop:
        return
    if not shape:
        yield (), ()
        return
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row
    if first > last:
        yield from _within_row(shape, last, start, stop)
        return
    yield from _within_row(shape, first - 1, start, first * row)
    if first < last:
        yield (first, *(0 for _ in shape[1:])), (last - first, *shape[1:])
    yield from _within_row(shape, last, last * row, stop)


def _within_row(shape: Shape, index: int, start: int, stop: int) -> Iterator[tuple[Shape, Shape]]:
    before = index * math.prod(shape[1:])
    for offset, size in boxes_of_range(shape[1:], start - before, stop - before):
        yield (index, *offset), (1, *size)
