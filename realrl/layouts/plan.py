"""Which rank sends which elements to which: the way from one layout to another."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from operator import itemgetter

from realrl.layouts.boxes import Cell, cells
from realrl.layouts.layout import Layout, Part, Pattern, Rank, Shape
from realrl.layouts.routes import Group, Route, route
from realrl.layouts.topology import ONE_NODE, Node, Topology

_FINE_ENOUGH = 64


@dataclass(frozen=True, slots=True)
class Region:
    """`shape` elements of a global tensor, from `offset` on in a local one."""

    tensor: str
    local: str
    offset: Shape
    shape: Shape


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """One cell of several tensors that both layouts cut alike."""

    source: Pattern
    target: Pattern
    source_keys: tuple[int, ...]
    target_keys: tuple[int, ...]
    cell: Cell

    @property
    def shape(self) -> Shape:
        return tuple(b - a for a, b in zip(self.cell.start, self.cell.stop))

    @property
    def cut_dim(self) -> int:
        """Where it is cut when several ranks send a part of it: at the outermost dim that is long."""
        shape = self.shape
        return next(
            (d for d, n in enumerate(shape) if n >= _FINE_ENOUGH), max(enumerate(shape), key=itemgetter(1))[0]
        )

    @property
    def holders(self) -> frozenset[Rank]:
        return frozenset(rank for part in self.cell.held for rank in part.ranks)

    @property
    def wanting(self) -> frozenset[Rank]:
        return frozenset(rank for part in self.cell.wanted for rank in part.ranks)

    def whole(self) -> Piece:
        return Piece(self, 0, len(self.source_keys), self.cell.start, self.cell.stop)


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """The range `[start, stop)` of the tensors `[first, last)` of a block."""

    block: Block
    first: int
    last: int
    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        return tuple(b - a for a, b in zip(self.start, self.stop))

    @property
    def numel(self) -> int:
        return math.prod(self.shape) * (self.last - self.first)

    def sources(self, rank: Rank) -> Iterator[Region]:
        """Where `rank` keeps it in the source layout, tensor by tensor."""
        part = next((part for part in self.block.cell.held if rank in part.ranks), None)
        assert part is not None, f"rank {rank} holds nothing of {self.block.source.tensor}"
        pattern, keys = self.block.source, self.block.source_keys
        yield from (self._region(pattern, key, part) for key in keys[self.first : self.last])

    def targets(self, rank: Rank) -> Iterator[tuple[Region, ...]]:
        """Where `rank` wants it in the target layout, tensor by tensor; each may have several places."""
        parts = [part for part in self.block.cell.wanted if rank in part.ranks]
        pattern, keys = self.block.target, self.block.target_keys
        yield from (
            tuple(self._region(pattern, key, part) for part in parts) for key in keys[self.first : self.last]
        )

    def _region(self, pattern: Pattern, key: int, part: Part) -> Region:
        tensor, local = pattern.name(pattern.tensor, key), pattern.name(part.local, key)
        return Region(tensor, local, part.at(self.start), self.shape)


@dataclass(frozen=True, eq=False)
class Stream:
    """Pieces that all take one route, in this order."""

    route: Route
    pieces: tuple[Piece, ...]

    @cached_property
    def numel(self) -> int:
        return sum(piece.numel for piece in self.pieces)


@dataclass(frozen=True, eq=False)
class Kept:
    """A piece that each of `ranks` both holds and wants."""

    ranks: frozenset[Rank]
    piece: Piece


@dataclass(frozen=True, eq=False)
class TransferPlan:
    """Every stream that turns one layout into another, and what stays where it is."""

    streams: tuple[Stream, ...]
    kept: tuple[Kept, ...]
    topology: Topology

    @cached_property
    def by_rank(self) -> dict[Rank, tuple[int, ...]]:
        """The places in `streams` of those that each rank sends, receives or passes on."""
        found = defaultdict(list)
        for index, stream in enumerate(self.streams):
            for rank in stream.route.ranks:
                found[rank].append(index)
        return {rank: tuple(members) for rank, members in found.items()}

    @cached_property
    def ranks(self) -> frozenset[Rank]:
        """All that have something to do."""
        return frozenset(self.by_rank).union(*(kept.ranks for kept in self.kept))

    @cached_property
    def received(self) -> dict[Rank, int]:
        """Elements that reach each rank."""
        return self._counted(lambda sender, receiver: receiver)

    @cached_property
    def sent(self) -> dict[Rank, int]:
        """Elements that leave each rank, those that it passes on included."""
        return self._counted(lambda sender, receiver: sender)

    @property
    def moved(self) -> int:
        """Elements that cross from one rank to another."""
        return sum(self.received.values())

    def entered(self, topology: Topology) -> dict[Node, int]:
        """Elements that enter each node from others."""
        node = topology.node
        return self._counted(lambda a, b: node(b) if node(a) != node(b) else None)

    def left(self, topology: Topology) -> dict[Node, int]:
        """Elements that leave each node for others."""
        node = topology.node
        return self._counted(lambda a, b: node(a) if node(a) != node(b) else None)

    def _counted(self, key) -> dict:
        counts: dict = defaultdict(int)
        for stream in self.streams:
            for sender, receiver in stream.route.edges:
                if (name := key(sender, receiver)) is not None:
                    counts[name] += stream.numel
        return dict(counts)


def plan(source: Layout, destination: Layout, topology: Topology = ONE_NODE) -> TransferPlan:
    """The streams that fill every box of `destination` from `source`.

    A rank keeps what it holds and receives each element that it lacks once, whichever of its boxes ask for
    it; an element enters a node once. Senders share the load. Pure and deterministic, so that every process
    finds the same plan.

    Raises:
        ValueError: `destination` asks for elements that no rank of `source` holds.
    """
    kept, groups = [], defaultdict(list)
    nodes = _Nodes(topology)
    for block in _blocks(source, destination):
        if both := block.holders & block.wanting:
            kept.append(Kept(both, block.whole()))
        for pair in nodes.pairs(block.holders, block.wanting - block.holders):
            groups[pair].append(block)
    streams = _streams(groups, topology)
    return TransferPlan(tuple(streams), tuple(kept), topology)


@lru_cache(maxsize=64)
def cached_plan(source: Layout, destination: Layout, topology: Topology = ONE_NODE) -> TransferPlan:
    """`plan`, found again for the same layouts."""
    return plan(source, destination, topology)


def needs(source: Layout, destination: Layout) -> Iterator[tuple[frozenset[Rank], frozenset[Rank], int]]:
    """What must move, whichever way: who holds it, who lacks it, and how many elements it has."""
    for block in _blocks(source, destination):
        if lacking := block.wanting - block.holders:
            yield block.holders, lacking, math.prod(block.shape) * len(block.source_keys)


class _Nodes:
    """Splits who holds and who lacks into pairs inside a node, and one of nodes that hold nothing."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._found: dict[tuple, list[tuple]] = {}

    def pairs(self, holders: frozenset[Rank], lacking: frozenset[Rank]) -> list[tuple]:
        key = (holders, lacking)
        if key not in self._found:
            self._found[key] = list(self._pairs(sorted(holders, key=_order), sorted(lacking, key=_order)))
        return self._found[key]

    def _pairs(self, holders: Sequence[Rank], lacking: Sequence[Rank]) -> Iterator[tuple]:
        held, outside = self._topology.by_node(holders), []
        for node, ranks in self._topology.by_node(lacking).items():
            if node in held:
                yield held[node], ranks
            else:
                outside += ranks
        if outside:
            yield tuple(holders), tuple(outside)


def _order(rank: Rank) -> tuple:
    return isinstance(rank, str), rank


def _blocks(source: Layout, destination: Layout) -> Iterator[Block]:
    """Every cell that is wanted, of all tensors with the same two patterns at once."""
    place = {t: (p, i) for p in source.patterns for i, t in enumerate(p.tensors)}
    for target in destination.patterns:
        alike = defaultdict(list)
        for index, tensor in enumerate(target.tensors):
            pattern, key = place.get(tensor, (None, -1))
            alike[pattern and id(pattern)].append((pattern, key, index))
        for members in alike.values():
            pattern, (_, keys, indices) = members[0][0], zip(*members, strict=True)
            for cell in cells(pattern.parts if pattern else (), target.parts):
                if not cell.held:
                    raise ValueError(_nobody_holds(target, indices[0], cell))
                yield Block(pattern, target, keys, indices, cell)


def _nobody_holds(target: Pattern, index: int, cell: Cell) -> str:
    ranges = ", ".join(f"{a}:{b}" for a, b in zip(cell.start, cell.stop, strict=True))
    return (
        f"rank {cell.wanted[0].ranks[0]} needs {target.name(target.tensor, index)}[{ranges}], which no rank"
        " of the source layout holds; give a source that covers the whole tensor"
    )


def _streams(groups: dict[tuple, list[Block]], topology: Topology) -> Iterator[Stream]:
    contents = [_Content(blocks) for blocks in groups.values()]
    sized = [Group(*pair, content.numel) for pair, content in zip(groups, contents, strict=True)]
    for content, fractions in zip(contents, route(sized, topology), strict=True):
        ends = accumulate((fraction for fraction, _ in fractions), initial=0.0)
        cursors = [content.cursor(end) for end in ends]
        cursors[-1] = content.end
        for (low, high), (_, routes) in zip(pairwise(cursors), fractions, strict=True):
            pieces = tuple(content.between(low, high))
            yield from (Stream(way, pieces) for way in routes if pieces)


Cursor = tuple[int, int, int]
"""A place between elements: a block, one of its tensors, and an index along the block's `cut_dim`."""


class _Content:
    """Blocks end to end, to be cut at fractions of the whole."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        sizes = [math.prod(block.shape) * len(block.source_keys) for block in blocks]
        self._starts = list(accumulate(sizes, initial=0))

    @property
    def numel(self) -> int:
        return self._starts[-1]

    @property
    def end(self) -> Cursor:
        return len(self._blocks), 0, 0

    def cursor(self, fraction: float) -> Cursor:
        """The nearest place where a block can be cut."""
        position = min(max(round(fraction * self.numel), 0), self.numel)
        index = bisect_right(self._starts, position) - 1
        if index == len(self._blocks):
            return self.end
        block = self._blocks[index]
        numel = math.prod(block.shape)
        key, rest = divmod(position - self._starts[index], numel)
        steps = block.shape[block.cut_dim] if block.shape else 1
        step = round(rest * steps / numel)
        return (index, key, step) if step < steps else (index, key + 1, 0)

    def between(self, low: Cursor, high: Cursor) -> Iterator[Piece]:
        for index in range(low[0], min(high[0] + 1, len(self._blocks))):
            block = self._blocks[index]
            first = low[1:] if index == low[0] else (0, 0)
            last = high[1:] if index == high[0] else (len(block.source_keys), 0)
            yield from _pieces(block, first, last)


def _pieces(block: Block, first: tuple[int, int], last: tuple[int, int]) -> Iterator[Piece]:
    """From one (tensor, step) of a block to another: part of the first tensor, whole ones, a part."""
    (key, step), (last_key, last_step) = first, last
    if key == last_key:
        if step < last_step:
            yield _part(block, key, step, last_step)
        return
    if step:
        yield _part(block, key, step, None)
        key += 1
    if key < last_key:
        yield Piece(block, key, last_key, block.cell.start, block.cell.stop)
    if last_step:
        yield _part(block, last_key, 0, last_step)


def _part(block: Block, key: int, low: int, high: int | None) -> Piece:
    (start, stop), dim = block.cell[:2], block.cut_dim
    stop = stop if high is None else (*stop[:dim], start[dim] + high, *stop[dim + 1 :])
    return Piece(block, key, key + 1, (*start[:dim], start[dim] + low, *start[dim + 1 :]), stop)
