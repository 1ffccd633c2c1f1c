"""Which rank holds which box of which global tensor."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

Rank = int | str
"""A global rank, or the name of a file that holds tensors."""


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open range in each dim of a named global tensor."""

    tensor: str
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
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
    offset: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Every shard of a set of global tensors."""

    shards: tuple[Shard, ...]

    @cached_property
    def by_rank(self) -> dict[Rank, tuple[Shard, ...]]:
        return _grouped(self.shards, lambda shard: shard.rank)

    @cached_property
    def by_tensor(self) -> dict[str, tuple[Shard, ...]]:
        return _grouped(self.shards, lambda shard: shard.box.tensor)

    @property
    def ranks(self) -> tuple[Rank, ...]:
        return tuple(self.by_rank)


def _grouped(shards, key) -> dict:
    groups = defaultdict(list)
    for shard in shards:
        groups[key(shard)].append(shard)
    return {name: tuple(members) for name, members in groups.items()}
