"""What one layout must bring to another, by plain grids.

On purpose not the planner's own geometry: what a plan moves is judged by these figures, and the other
methods move what these pieces say.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from realrl.layouts.layout import Box, Layout, Part, Rank, Shape


@dataclass(frozen=True)
class Piece:
    """The range `[start, stop)` of each of `tensors`: all `holders` hold it, all `wanting` want it."""

    tensors: tuple[str, ...]
    start: Shape
    stop: Shape
    holders: frozenset[Rank]
    wanting: frozenset[Rank]

    @property
    def numel(self) -> int:
        return len(self.tensors) * math.prod(b - a for a, b in zip(self.start, self.stop))

    @property
    def boxes(self) -> Iterator[Box]:
        return (Box(tensor, self.start, self.stop) for tensor in self.tensors)


def pieces(source: Layout, destination: Layout) -> Iterator[Piece]:
    """Disjoint pieces that cover all of `destination`."""
    origin = {tensor: pattern for pattern in source.patterns for tensor in pattern.tensors}
    for target in destination.patterns:
        alike: dict[int, list[str]] = defaultdict(list)
        for tensor in target.tensors:
            alike[id(origin[tensor])].append(tensor)
        for tensors in alike.values():
            yield from _grid(tuple(tensors), origin[tensors[0]].parts, target.parts)


def lower_bound(source: Layout, destination: Layout) -> int:
    """The elements that ranks want and lack, which no method can but send."""
    return sum(piece.numel * len(piece.wanting - piece.holders) for piece in pieces(source, destination))


def shares(source: Layout) -> dict[Rank, list[Box]]:
    """Every element of a layout once, given evenly to those who hold it, in slices of the outermost dim."""
    found: dict[Rank, list[Box]] = defaultdict(list)
    for piece in pieces(source, source):
        holders = sorted(piece.holders)
        for box in piece.boxes:
            for holder, part in zip(holders, _sliced(box, len(holders))):
                if part.numel:
                    found[holder].append(part)
    return dict(found)


def messages(boxes: Sequence[Box], limit: int) -> list[list[Box]]:
    """Boxes in turn, cut along the outermost dim, in messages of about `limit` elements."""
    return buckets([part for box in boxes for part in _sliced(box, -(-box.numel // limit))], limit)


def buckets(boxes: Sequence[Box], limit: int) -> list[list[Box]]:
    """Whole boxes in turn, in buckets of at most `limit` elements, or of one box that is larger."""
    found: list[list[Box]] = []
    room = -math.inf
    for box in boxes:
        if box.numel > room:
            found.append([])
            room = limit
        found[-1].append(box)
        room -= box.numel
    return found


def senders(
    holders: frozenset[Rank], wanting: frozenset[Rank], node_of: Callable[[Rank], object]
) -> dict[Rank, list[Rank]]:
    """Who broadcasts to whom, as ReaL has it: one holder of each node that is needed, and no balance in it.

    A node that wants the content gets it of a holder on the same node, if there is one, and of the node
    with the fewest such tasks if not. A holder that wants the content itself goes first; then the first.
    Source: openpsi-project/ReaLHF, realhf/impl/model/comm/param_realloc.py, `_assign_src_to_dsts`.
    """
    holding, asking = _by_node(holders, node_of), _by_node(wanting, node_of)
    tasks: dict[object, list[Rank]] = defaultdict(list)
    for node in sorted(asking, key=lambda node: node not in holding):
        chosen = node if node in holding else min(holding, key=lambda n: len(tasks[n]))
        tasks[chosen] += asking[node]
    found = {}
    for node, receivers in tasks.items():
        if receivers:
            found[next((r for r in holding[node] if r in receivers), holding[node][0])] = receivers
    return found


def _by_node(ranks: frozenset[Rank], node_of: Callable[[Rank], object]) -> dict[object, list[Rank]]:
    found: dict[object, list[Rank]] = defaultdict(list)
    for rank in sorted(ranks):
        found[node_of(rank)].append(rank)
    return dict(found)


def _grid(tensors: tuple[str, ...], held: Sequence[Part], wanted: Sequence[Part]) -> Iterator[Piece]:
    """Cut everywhere where a part begins or ends."""
    num_dims = len(wanted[0].start)
    edges = [sorted({e for p in (*held, *wanted) for e in (p.start[d], p.stop[d])}) for d in range(num_dims)]
    for ranges in product(*(pairwise(along) for along in edges)):
        start, stop = tuple(a for a, _ in ranges), tuple(b for _, b in ranges)
        if wanting := _ranks(wanted, start, stop):
            yield Piece(tensors, start, stop, _ranks(held, start, stop), wanting)


def _ranks(parts: Sequence[Part], start: Shape, stop: Shape) -> frozenset[Rank]:
    inside = (p for p in parts if all(a <= b for a, b in zip(p.start, start)) and _covers(p.stop, stop))
    return frozenset(rank for part in inside for rank in part.ranks)


def _covers(a: Shape, b: Shape) -> bool:
    return all(x >= y for x, y in zip(a, b))


def _sliced(box: Box, num: int) -> Iterator[Box]:
    first, last = box.start[0], box.stop[0]
    num = max(1, num)
    cuts = [first + (last - first) * i // num for i in range(num + 1)]
    for low, high in pairwise(cuts):
        yield Box(box.tensor, (low, *box.start[1:]), (high, *box.stop[1:]))
