"""Which rank holds which box of which global tensor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

Rank = int | str
"""A global rank, or the name of a file that holds tensors."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open range in each dim of a named global tensor."""

    tensor: str
    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        return tuple(b - a for a, b in zip(self.start, self.stop))

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """`rank` keeps `box` in the local tensor `local`, beginning at `offset`."""

    rank: Rank
    box: Box
    local: str
    offset: Shape


@dataclass(frozen=True, slots=True)
class Part:
    """Each of `ranks` keeps a tensor's range `[start, stop)` in the local tensor `local`, at `offset`."""

    ranks: tuple[Rank, ...]
    start: Shape
    stop: Shape
    local: str
    offset: Shape

    @property
    def numel(self) -> int:
        return math.prod(b - a for a, b in zip(self.start, self.stop))

    def at(self, start: Shape) -> Shape:
        """Where the element `start` of the global tensor lies in the local one."""
        return tuple(o + a - b for o, a, b in zip(self.offset, start, self.start))


@dataclass(frozen=True, slots=True)
class Pattern:
    """Tensors that are cut alike, as a model's layers are.

    With keys, a `*` in the tensor's name and in those of its local tensors stands for each of them;
    without, the names are one tensor's own.
    """

    tensor: str
    parts: tuple[Part, ...]
    keys: tuple[str, ...] | None = None

    @property
    def tensors(self) -> list[str]:
        return [self.tensor] if self.keys is None else [self.tensor.replace("*", key) for key in self.keys]

    def name(self, template: str, index: int) -> str:
        """A global or local name as it is for the tensor at `index`."""
        return template if self.keys is None else template.replace("*", self.keys[index])


@dataclass(frozen=True, eq=False)
class Layout:
    """Where every element of a set of global tensors is kept; each tensor is in one pattern.

    Layouts are equal when they are the same object, so that what was planned for one is quickly found.
    """

    patterns: tuple[Pattern, ...]

    @staticmethod
    def of(shards: Iterable[Shard]) -> Layout:
        """The layout of shards listed one by one."""
        parts = defaultdict(list)
        for s in shards:
            parts[s.box.tensor].append(Part((s.rank,), s.box.start, s.box.stop, s.local, s.offset))
        return Layout(tuple(Pattern(tensor, tuple(members)) for tensor, members in parts.items()))

    @cached_property
    def ranks(self) -> tuple[Rank, ...]:
        return tuple(dict.fromkeys(r for pattern in self.patterns for p in pattern.parts for r in p.ranks))

    def shards(self, rank: Rank) -> Iterator[Shard]:
        """All that one rank holds."""
        for pattern in self.patterns:
            own = [part for part in pattern.parts if rank in part.ranks]
            for index, tensor in enumerate(pattern.tensors if own else ()):
                for part in own:
                    box = Box(tensor, part.start, part.stop)
                    yield Shard(rank, box, pattern.name(part.local, index), part.offset)

    def only(self, rank: Rank) -> Layout:
        """What one rank holds, as a layout of its own."""
        return Layout.of(self.shards(rank))

    def extents(self) -> dict[str, Shape]:
        """The shape of each tensor, as far as some rank holds it."""
        shapes = {}
        for pattern in self.patterns:
            shape = tuple(map(max, zip(*(part.stop for part in pattern.parts), strict=True)))
            shapes.update(dict.fromkeys(pattern.tensors, shape))
        return shapes
