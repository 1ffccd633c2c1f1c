"""Geometry of boxes: meet, overlay and cut."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import product
from operator import lt, sub

from realrl.layouts.layout import Box, Shard

Shape = tuple[int, ...]


def intersect(a: Box, b: Box) -> Box | None:
    """The elements of one tensor that lie in both boxes, or None."""
    assert len(a.start) == len(b.start), (
        f"{a.tensor} has {len(a.start)} dims in one box, {len(b.start)} in another"
    )
    start = tuple(map(max, a.start, b.start))
    stop = tuple(map(min, a.stop, b.stop))
    return Box(a.tensor, start, stop) if all(map(lt, start, stop)) else None


def subtract(a: Box, b: Box) -> Iterator[Box]:
    """The rest of `a` without `b`, a box inside it, as disjoint boxes."""
    start, stop = list(a.start), list(a.stop)
    for dim, (low, high) in enumerate(zip(b.start, b.stop, strict=True)):
        if start[dim] < low:
            yield Box(a.tensor, tuple(start), (*stop[:dim], low, *stop[dim + 1 :]))
        if high < stop[dim]:
            yield Box(a.tensor, (*start[:dim], high, *start[dim + 1 :]), tuple(stop))
        start[dim], stop[dim] = low, high


def split(shape: Shape, limit: int) -> Iterator[tuple[Shape, Shape]]:
    """Cut `shape` into blocks of at most `limit` elements: each one's offset and shape."""
    inner, steps = 1, []
    for size in reversed(shape):
        steps.append(max(1, min(size, limit // inner)))
        inner *= size
    steps.reverse()
    for offset in product(*(range(0, size, step) for size, step in zip(shape, steps, strict=True))):
        yield offset, tuple(map(min, steps, map(sub, shape, offset)))


class Overlay:
    """One tensor's shards, searchable by box."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = sorted((s for s in shards if s.box.numel), key=_first_row)
        self._starts = [_first_row(shard) for shard in self._shards]
        self._longest = max((s.box.stop[0] - s.box.start[0] for s in self._shards if s.box.shape), default=1)

    def cut(self, box: Box) -> list[tuple[Box, tuple[Shard, ...]]]:
        """Disjoint parts of `box`, together all of it, each with every shard that holds it whole."""
        parts: list[tuple[Box, tuple[Shard, ...]]] = [(box, ())] if box.numel else []
        for shard in self._near(box):
            if intersect(box, shard.box):
                parts = [piece for part, holders in parts for piece in _cut_by(shard, part, holders)]
        return parts

    def _near(self, box: Box) -> list[Shard]:
        if not box.shape:
            return self._shards
        first = bisect_left(self._starts, box.start[0] - self._longest + 1)
        return self._shards[first : bisect_left(self._starts, box.stop[0])]


def _cut_by(shard: Shard, part: Box, holders: tuple[Shard, ...]) -> Iterator[tuple[Box, tuple[Shard, ...]]]:
    common = intersect(part, shard.box)
    if common is None:
        yield part, holders
        return
    yield common, (*holders, shard)
    for rest in subtract(part, common):
        yield rest, holders


def _first_row(shard: Shard) -> int:
    return shard.box.start[0] if shard.box.start else 0
