"""Which rank sends which elements to which: the way from one layout to another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from realrl.layouts.boxes import Overlay, Shape, split
from realrl.layouts.layout import Box, Layout, Rank, Shard, _grouped

_CHUNKS_PER_SENDER = 64
_SMALLEST_CHUNK = 256
_MOST_PASSES = 32


@dataclass(frozen=True, slots=True)
class Copy:
    """`shape` elements of a global tensor go from one local tensor into another.

    Copies with equal `payload` carry the same elements to one rank: they cross once and are
    written to each target.
    """

    tensor: str
    shape: Shape
    source: Rank
    source_local: str
    source_offset: Shape
    target: Rank
    target_local: str
    target_offset: Shape

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def crosses(self) -> bool:
        return self.source != self.target

    @property
    def payload(self) -> tuple:
        return self.source, self.target, self.source_local, self.source_offset, self.shape

    def pieces(self, limit: int) -> Iterator[Copy]:
        """The same copy as copies of at most `limit` elements."""
        if self.numel <= limit:
            yield self
            return
        for offset, shape in split(self.shape, limit):
            yield replace(
                self,
                shape=shape,
                source_offset=_add(self.source_offset, offset),
                target_offset=_add(self.target_offset, offset),
            )


@dataclass(frozen=True)
class TransferPlan:
    """Every copy that turns one layout into another, in the order in which ranks carry them out."""

    copies: tuple[Copy, ...]

    @cached_property
    def by_source(self) -> dict[Rank, tuple[Copy, ...]]:
        return _grouped(self.copies, lambda copy: copy.source)

    @cached_property
    def by_target(self) -> dict[Rank, tuple[Copy, ...]]:
        return _grouped(self.copies, lambda copy: copy.target)

    @cached_property
    def pairs(self) -> dict[tuple[Rank, Rank], tuple[Copy, ...]]:
        """The copies that cross ranks, by (source, target)."""
        crossing = [copy for copy in self.copies if copy.crosses]
        return _grouped(crossing, lambda copy: (copy.source, copy.target))

    @property
    def ranks(self) -> tuple[Rank, ...]:
        return tuple(dict.fromkeys((*self.by_source, *self.by_target)))

    def moved_elements(self) -> int:
        """Elements that cross from one rank to another."""
        return sum(self._crossing.values())

    def received_elements(self, rank: Rank) -> int:
        return sum(n for (_, target), n in self._crossing.items() if target == rank)

    @cached_property
    def _crossing(self) -> dict[tuple[Rank, Rank], int]:
        return {
            pair: sum({copy.payload: copy.numel for copy in copies}.values())
            for pair, copies in self.pairs.items()
        }


def plan(source: Layout, destination: Layout) -> TransferPlan:
    """The copies that fill every box of `destination` from `source`.

    A rank keeps what it holds and receives each element that it lacks once, whichever of its
    boxes ask for it. Among several holders the senders share the load. Pure and deterministic,
    so that every process finds the same plan.

    Raises:
        ValueError: `destination` asks for elements that no rank of `source` holds.
    """
    demands = list(_chunked(list(_demands(source, destination))))
    copies = []
    for demand, sender in zip(demands, _senders(demands), strict=True):
        held = demand.holders[sender]
        copies += [_copy(demand.box, held, target) for target in demand.targets]
    return TransferPlan(tuple(copies))


@dataclass(frozen=True, slots=True)
class _Demand:
    """One rank's need of a box, which each of `holders` holds whole."""

    box: Box
    holders: dict[Rank, Shard]
    targets: tuple[Shard, ...]

    @property
    def egress(self) -> int:
        return 0 if self.targets[0].rank in self.holders else self.box.numel


def _demands(source: Layout, destination: Layout) -> Iterator[_Demand]:
    for tensor, wanted in destination.by_tensor.items():
        held = Overlay(source.by_tensor.get(tensor, ()))
        for rank, shards in Layout(wanted).by_rank.items():
            for box, targets in _distinct(shards):
                for part, holding in held.cut(box):
                    yield _Demand(part, _holders(part, rank, holding), targets)


def _distinct(shards: Sequence[Shard]) -> Iterator[tuple[Box, tuple[Shard, ...]]]:
    """Disjoint boxes that cover the shards' boxes, each with the shards that it lies in."""
    own = Overlay(shards)
    place = {id(shard): index for index, shard in enumerate(shards)}
    for index, shard in enumerate(shards):
        for part, targets in own.cut(shard.box):
            if min(place[id(target)] for target in targets) == index:
                yield part, targets


def _holders(part: Box, rank: Rank, holding: Sequence[Shard]) -> dict[Rank, Shard]:
    if not holding:
        raise ValueError(
            f"rank {rank} needs {part.tensor}[{_ranges(part)}], which no rank of the source layout holds;"
            " give a source that covers the whole tensor"
        )
    holders = {shard.rank: shard for shard in reversed(holding)}
    return {rank: holders[rank]} if rank in holders else dict(reversed(holders.items()))


def _chunked(demands: Sequence[_Demand]) -> Iterator[_Demand]:
    """Cut what several ranks could send, finely enough to share the load evenly."""
    senders = {rank: None for demand in demands if demand.egress for rank in demand.holders}
    total = sum(demand.egress for demand in demands)
    limit = max(_SMALLEST_CHUNK, total // (_CHUNKS_PER_SENDER * max(1, len(senders))))
    for demand in demands:
        if len(demand.holders) == 1 or demand.box.numel <= limit:
            yield demand
            continue
        for offset, shape in split(demand.box.shape, limit):
            start = _add(demand.box.start, offset)
            yield replace(demand, box=Box(demand.box.tensor, start, _add(start, shape)))


def _senders(demands: Sequence[_Demand]) -> list[Rank]:
    """A holder for each demand, reconsidered until none could be left to a less loaded one.

    Then the largest egress is the least possible, up to a few chunks.
    """
    chosen = [next(iter(demand.holders)) for demand in demands]
    load: dict[Rank, int] = defaultdict(int)
    for demand, sender in zip(demands, chosen, strict=True):
        load[sender] += demand.egress
    free = [i for i, demand in enumerate(demands) if len(demand.holders) > 1]
    free.sort(key=lambda i: (len(demands[i].holders), -demands[i].egress))
    for _ in range(_MOST_PASSES):
        if not sum([_reconsider(demands[i], i, chosen, load) for i in free]):
            break
    return chosen


def _reconsider(demand: _Demand, i: int, chosen: list[Rank], load: dict[Rank, int]) -> bool:
    best, now = min(demand.holders, key=load.__getitem__), chosen[i]
    if load[best] + demand.egress >= load[now]:
        return False
    load[now] -= demand.egress
    load[best] += demand.egress
    chosen[i] = best
    return True


def _copy(box: Box, held: Shard, target: Shard) -> Copy:
    return Copy(
        box.tensor,
        box.shape,
        held.rank,
        held.local,
        _at(held, box),
        target.rank,
        target.local,
        _at(target, box),
    )


def _at(shard: Shard, box: Box) -> Shape:
    return tuple(map(lambda offset, a, b: offset + a - b, shard.offset, box.start, shard.box.start))


def _add(a: Shape, b: Shape) -> Shape:
    return tuple(map(int.__add__, a, b))


def _ranges(box: Box) -> str:
    return ", ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True))
