"""Plans a transfer between two layouts: which rank sends which elements to which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from typing import TypeVar

from realrl.layouts.boxes import Cell, cells
from realrl.layouts.contents import Content
from realrl.layouts.layout import Layout, Part, Pattern, Rank
from realrl.layouts.pieces import Block, Piece
from realrl.layouts.routes import Group, Route, Ways, route
from realrl.layouts.topology import ONE_NODE, Node, Topology

_Name = TypeVar("_Name", bound=Rank | Node)

_Pair = tuple[tuple[Rank, ...], tuple[Rank, ...]]
"""Ranks that hold some content, and ranks that lack it and receive it from them."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Pieces that all take one route, in this order."""

    route: Route
    pieces: tuple[Piece, ...]

    @cached_property
    def numel(self) -> int:
        """Return the number of elements of all pieces."""
        return sum(piece.numel for piece in self.pieces)


@dataclass(frozen=True, eq=False)
class Kept:
    """A piece that each of `ranks` both holds and wants."""

    ranks: frozenset[Rank]
    piece: Piece


@dataclass(frozen=True, eq=False)
class TransferPlan:
    """Every stream that turns one layout into another, and every piece that stays on its rank."""

    streams: tuple[Stream, ...]
    kept: tuple[Kept, ...]
    topology: Topology

    @cached_property
    def by_rank(self) -> dict[Rank, tuple[int, ...]]:
        """The indices in `streams` of those that each rank sends, receives or relays."""
        found: dict[Rank, list[int]] = defaultdict(list)
        for index, stream in enumerate(self.streams):
            for rank in stream.route.ranks:
                found[rank].append(index)

        by_rank = {}
        for rank, indices in found.items():
            by_rank[rank] = tuple(indices)
        return by_rank

    @cached_property
    def ranks(self) -> frozenset[Rank]:
        """All ranks that take part in a stream or keep a piece."""
        found = set(self.by_rank)
        for kept in self.kept:
            found.update(kept.ranks)
        return frozenset(found)

    @cached_property
    def received(self) -> dict[Rank, int]:
        """The number of elements that each rank receives."""
        return self._count(lambda sender, receiver: receiver)

    @cached_property
    def sent(self) -> dict[Rank, int]:
        """The number of elements that each rank sends, including those that it relays."""
        return self._count(lambda sender, receiver: sender)

    @property
    def moved(self) -> int:
        """The number of elements that cross from one rank to another."""
        return sum(self.received.values())

    def entered(self, topology: Topology) -> dict[Node, int]:
        """Return the number of elements that enter each node from others."""

        def entered_node(sender: Rank, receiver: Rank) -> Node | None:
            """Return the node that an edge enters."""
            node = topology.node(receiver)
            return None if topology.node(sender) == node else node

        return self._count(entered_node)

    def left(self, topology: Topology) -> dict[Node, int]:
        """Return the number of elements that leave each node for others."""

        def left_node(sender: Rank, receiver: Rank) -> Node | None:
            """Return the node that an edge leaves."""
            node = topology.node(sender)
            return None if topology.node(receiver) == node else node

        return self._count(left_node)

    def _count(self, name_of: Callable[[Rank, Rank], _Name | None]) -> dict[_Name, int]:
        """Count elements under the name that `name_of` gives an edge; None leaves the edge out."""
        counts: dict[_Name, int] = defaultdict(int)
        for stream in self.streams:
            numel = stream.numel
            for sender, receiver in stream.route.edges:
                name = name_of(sender, receiver)
                if name is not None:
                    counts[name] += numel
        return dict(counts)


def plan(source: Layout, destination: Layout, topology: Topology = ONE_NODE) -> TransferPlan:
    """Return the streams that fill every box of `destination` from `source`.

    A rank keeps what it holds. It receives each element that it lacks once, even if several of its boxes
    contain it. An element enters a node once. Senders share the load. The function is pure and
    deterministic, so that every process finds the same plan.

    Raises:
        ValueError: `destination` asks for elements that no rank of `source` holds.
    """
    kept = []
    groups: dict[_Pair, list[Block]] = defaultdict(list)
    pairing = _Pairing(topology)
    for block in _blocks(source, destination):
        holders = block.holders
        wanting = block.wanting
        both = holders & wanting
        if both:
            kept_piece = block.whole()
            kept.append(Kept(both, kept_piece))

        lacking = wanting - holders
        for pair in pairing.pairs(holders, lacking):
            groups[pair].append(block)

    streams = tuple(_streams(groups, topology))
    return TransferPlan(streams, tuple(kept), topology)


@lru_cache(maxsize=64)
def cached_plan(source: Layout, destination: Layout, topology: Topology = ONE_NODE) -> TransferPlan:
    """Return `plan` of the same arguments, from a cache if these objects were planned before."""
    return plan(source, destination, topology)


def needs(source: Layout, destination: Layout) -> Iterator[tuple[frozenset[Rank], frozenset[Rank], int]]:
    """Yield what must move by any plan: the ranks that hold it, the ranks that lack it, and its elements.

    Raises:
        ValueError: `destination` asks for elements that no rank of `source` holds.
    """
    for block in _blocks(source, destination):
        holders = block.holders
        lacking = block.wanting - holders
        if lacking:
            yield holders, lacking, block.numel


class _Pairing:
    """Divides the ranks that hold and the ranks that lack some content into pairs.

    There is one pair for each node with ranks of both kinds, and one for all nodes that hold nothing.
    Results are cached, because thousands of blocks have the same ranks.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._found: dict[tuple[frozenset[Rank], frozenset[Rank]], list[_Pair]] = {}

    def pairs(self, holders: frozenset[Rank], lacking: frozenset[Rank]) -> list[_Pair]:
        """Return the pairs, with ranks in order."""
        key = (holders, lacking)
        found = self._found.get(key)
        if found is None:
            # Sets have no order that all processes share.
            ordered_holders = sorted(holders, key=_rank_order)
            ordered_lacking = sorted(lacking, key=_rank_order)
            found = self._divided(ordered_holders, ordered_lacking)
            self._found[key] = found
        return found

    def _divided(self, holders: Sequence[Rank], lacking: Sequence[Rank]) -> list[_Pair]:
        """Return the pairs of ordered ranks."""
        held = self._topology.by_node(holders)
        pairs: list[_Pair] = []
        outside: list[Rank] = []
        for node, ranks in self._topology.by_node(lacking).items():
            if node in held:
                pairs.append((held[node], ranks))
            else:
                outside.extend(ranks)
        if outside:
            pairs.append((tuple(holders), tuple(outside)))
        return pairs


def _rank_order(rank: Rank) -> tuple[bool, Rank]:
    """Return a sort key that places numbers before file names, since the two cannot be compared."""
    is_file = isinstance(rank, str)
    return is_file, rank


@dataclass(frozen=True, eq=False)
class _AlikeTensors:
    """Tensors of one destination pattern that share a source pattern, or that the source layout lacks.

    The keys are the tensors' indices in the two patterns.
    """

    source: Pattern | None
    source_keys: list[int]
    target_keys: list[int]


def _blocks(source: Layout, destination: Layout) -> Iterator[Block]:
    """Yield every wanted cell, for all tensors with the same two patterns at once."""
    places = _pattern_places(source)
    for target in destination.patterns:
        for alike in _group_alike(target, places):
            source_keys = tuple(alike.source_keys)
            target_keys = tuple(alike.target_keys)
            held: tuple[Part, ...] = ()
            if alike.source is not None:
                held = alike.source.parts

            for cell in cells(held, target.parts):
                if alike.source is None or not cell.held:
                    message = _nobody_holds(target, target_keys[0], cell)
                    raise ValueError(message)
                yield Block(
                    alike.source,
                    target,
                    source_keys,
                    target_keys,
                    cell,
                )


def _pattern_places(layout: Layout) -> dict[str, tuple[Pattern, int]]:
    """Return the pattern of each tensor, and its index there."""
    places = {}
    for pattern in layout.patterns:
        for index, tensor in enumerate(pattern.tensors):
            places[tensor] = (pattern, index)
    return places


def _group_alike(target: Pattern, places: Mapping[str, tuple[Pattern, int]]) -> list[_AlikeTensors]:
    """Group the tensors of `target` by their pattern in the source layout."""
    # Patterns are told apart by identity: hashing one would visit all of its parts.
    groups: dict[int, _AlikeTensors] = {}
    for target_key, tensor in enumerate(target.tensors):
        pattern, source_key = places.get(tensor, (None, -1))
        identity = id(pattern)
        group = groups.get(identity)
        if group is None:
            group = _AlikeTensors(
                pattern,
                source_keys=[],
                target_keys=[],
            )
            groups[identity] = group

        group.source_keys.append(source_key)
        group.target_keys.append(target_key)
    return list(groups.values())


def _nobody_holds(target: Pattern, index: int, cell: Cell) -> str:
    """Return the message for a cell that the source layout lacks."""
    ranges = []
    for start, stop in zip(cell.start, cell.stop, strict=True):
        ranges.append(f"{start}:{stop}")
    index_text = ", ".join(ranges)
    rank = cell.wanted[0].ranks[0]
    tensor = target.name(target.tensor, index)
    return (
        f"rank {rank} needs {tensor}[{index_text}], which no rank"
        " of the source layout holds; give a source that covers the whole tensor"
    )


def _streams(groups: Mapping[_Pair, Sequence[Block]], topology: Topology) -> Iterator[Stream]:
    """Yield the streams of all groups of blocks."""
    contents = []
    sized = []
    for (holders, lacking), blocks in groups.items():
        content = Content(blocks)
        contents.append(content)
        sized.append(Group(holders, lacking, content.numel))

    for content, ways in zip(contents, route(sized, topology), strict=True):
        yield from _streams_of(content, ways)


def _streams_of(content: Content, ways: Ways) -> Iterator[Stream]:
    """Yield the streams of one content, cut at the fractions of `ways`."""
    fractions = [fraction for fraction, _ in ways]
    ends = accumulate(fractions, initial=0.0)
    cursors = []
    for end in ends:
        cursor = content.cursor(end)
        cursors.append(cursor)

    # The fractions' sum may miss 1 by a rounding error, and nothing may be lost at the end.
    cursors[-1] = content.end
    for (low, high), (_, routes) in zip(pairwise(cursors), ways, strict=True):
        pieces = tuple(content.between(low, high))
        if not pieces:
            continue
        for tree in routes:
            yield Stream(tree, pieces)
