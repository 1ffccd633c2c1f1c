"""A layout: which rank holds which box of which global tensor."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import sub

Rank = int | str
"""A global rank, or the name of a file that holds tensors."""

Shape = tuple[int, ...]
"""One integer per dim: a shape, an offset or a corner of a box."""


def lengths_of(start: Shape, stop: Shape) -> Shape:
    """Return the length in every dim of the range from one corner to the other."""
    return tuple(map(sub, stop, start))


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open range `[start, stop)` in every dim of a named global tensor."""

    tensor: str
    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Return the box's length in every dim."""
        return lengths_of(self.start, self.stop)

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Shard:
    """A box that `rank` holds at `offset` of its local tensor `local`."""

    rank: Rank
    box: Box
    local: str
    offset: Shape


@dataclass(frozen=True, slots=True)
class Part:
    """A range `[start, stop)` of a tensor that each of `ranks` holds at `offset` of its tensor `local`."""

    ranks: tuple[Rank, ...]
    start: Shape
    stop: Shape
    local: str
    offset: Shape

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(lengths_of(self.start, self.stop))

    def at(self, start: Shape) -> Shape:
        """Return the index in the local tensor of the element `start` of the global tensor."""
        local = []
        for offset, index, first in zip(self.offset, start, self.start):
            position = offset + index - first
            local.append(position)
        return tuple(local)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Tensors with the same parts, such as one weight of every layer.

    With keys there is one tensor per key, and the key replaces each `*` in global and local names.
    Without keys there is one tensor, and its names are used unchanged.
    """

    tensor: str
    parts: tuple[Part, ...]
    keys: tuple[str, ...] | None = None

    @property
    def tensors(self) -> list[str]:
        """Return the names of the global tensors, one per key."""
        if self.keys is None:
            return [self.tensor]
        return [self.tensor.replace("*", key) for key in self.keys]

    def name(self, template: str, index: int) -> str:
        """Return the global or local name `template` with the key of the tensor at `index`."""
        if self.keys is None:
            return template
        return template.replace("*", self.keys[index])


@dataclass(frozen=True, eq=False)
class Layout:
    """The ranks and local tensors that hold every element of a set of global tensors.

    Each tensor is in exactly one pattern. Layouts compare by identity, which makes the lookup of a cached
    plan fast.
    """

    patterns: tuple[Pattern, ...]

    @staticmethod
    def of(shards: Iterable[Shard]) -> Layout:
        """Return the layout that consists of `shards`."""
        parts: dict[str, list[Part]] = defaultdict(list)
        for shard in shards:
            box = shard.box
            part = Part(
                (shard.rank,),
                box.start,
                box.stop,
                shard.local,
                shard.offset,
            )
            parts[box.tensor].append(part)

        patterns = []
        for tensor, members in parts.items():
            pattern = Pattern(tensor, tuple(members))
            patterns.append(pattern)
        return Layout(tuple(patterns))

    @cached_property
    def ranks(self) -> tuple[Rank, ...]:
        """All ranks, in the order of their first part."""
        # A dict keeps the first occurrence's place; a set has no order that all processes share.
        found: dict[Rank, None] = {}
        for pattern in self.patterns:
            for part in pattern.parts:
                found.update(dict.fromkeys(part.ranks))
        return tuple(found)

    def shards(self, rank: Rank) -> Iterator[Shard]:
        """Yield every shard that `rank` holds."""
        for pattern in self.patterns:
            own = [part for part in pattern.parts if rank in part.ranks]
            if not own:
                continue
            for index, tensor in enumerate(pattern.tensors):
                for part in own:
                    box = Box(tensor, part.start, part.stop)
                    local = pattern.name(part.local, index)
                    shard = Shard(rank, box, local, part.offset)
                    yield shard

    def only(self, rank: Rank) -> Layout:
        """Return the layout of the shards of `rank`."""
        return Layout.of(self.shards(rank))

    def extents(self) -> dict[str, Shape]:
        """Return the smallest shape of each tensor that contains all of its parts."""
        shapes: dict[str, Shape] = {}
        for pattern in self.patterns:
            stops = []
            for part in pattern.parts:
                stops.append(part.stop)
            stops_by_dim = zip(*stops, strict=True)
            shape = tuple(map(max, stops_by_dim))
            for tensor in pattern.tensors:
                shapes[tensor] = shape
        return shapes
