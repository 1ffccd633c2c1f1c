"""Random layouts, and an oracle that carries out a plan element by element and judges it by its rules."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.pieces import Region
from realrl.layouts.plan import TransferPlan
from realrl.layouts.topology import Topology


def random_layout(rng: random.Random, tensors: dict[str, tuple[int, ...]], ranks: list) -> Layout:
    """Each tensor cut unevenly into a random grid, each box on one or several ranks, with padding around it.

    A local tensor holds several boxes; a rank may hold one box twice, and overlapping ones.
    """
    shards: list[Shard] = []
    rows: Counter = Counter()
    for tensor, shape in tensors.items():
        for box in _grid(rng, tensor, shape) + _strays(rng, tensor, shape):
            for rank in rng.choices(ranks, k=rng.randint(1, len(ranks))):
                shards.append(_place(rng, rank, box, rows))
    rng.shuffle(shards)
    return Layout.of(shards)


def _place(rng: random.Random, rank, box: Box, rows: Counter) -> Shard:
    if not box.shape:
        rows[rank, "scalar"] += 1
        return Shard(rank, box, f"scalar{rows[rank, 'scalar']}", ())
    # A rank's boxes of one tensor are stacked along dim 0 of two local tensors.
    local = f"{box.tensor}.{rng.randint(0, 1)}"
    start = rows[rank, local] + rng.randint(0, 1)
    rows[rank, local] = start + box.shape[0]
    return Shard(rank, box, local, (start, *(rng.randint(0, 2) for _ in box.shape[1:])))


def _grid(rng: random.Random, tensor: str, shape: tuple[int, ...]) -> list[Box]:
    ranges = []
    for size in shape:
        cuts = sorted({0, size, *(rng.randint(0, size) for _ in range(rng.randint(0, 2)))})
        ranges.append(list(itertools.pairwise(cuts)))
    return [Box(tensor, tuple(a for a, _ in c), tuple(b for _, b in c)) for c in itertools.product(*ranges)]


def _strays(rng: random.Random, tensor: str, shape: tuple[int, ...]) -> list[Box]:
    """Now and then a box that lies across the grid."""
    if rng.random() < 0.5:
        return []
    ends = [sorted((rng.randint(0, size), rng.randint(0, size))) for size in shape]
    return [Box(tensor, tuple(a for a, _ in ends), tuple(b for _, b in ends))]


def all_shards(layout: Layout) -> Iterator[Shard]:
    return (shard for rank in layout.ranks for shard in layout.shards(rank))


def local_shapes(layout: Layout) -> dict:
    """The smallest local tensors with room for every box: `{rank: {local: shape}}`."""
    shapes: dict = defaultdict(dict)
    for shard in all_shards(layout):
        stop = tuple(a + n for a, n in zip(shard.offset, shard.box.shape, strict=True))
        shapes[shard.rank][shard.local] = tuple(map(max, stop, shapes[shard.rank].get(shard.local, stop)))
    return dict(shapes)


def paint(layout: Layout, values: dict[str, np.ndarray], background) -> dict:
    """Every rank's local tensors, with `values` in the boxes and `background` in the padding."""
    dtypes = {shard.local: values[shard.box.tensor].dtype for shard in all_shards(layout)}
    locals_ = {
        rank: {name: np.full(shape, background, dtypes[name]) for name, shape in shapes.items()}
        for rank, shapes in local_shapes(layout).items()
    }
    for shard in all_shards(layout):
        locals_[shard.rank][shard.local][_slices(shard.offset, shard.box.shape)] = values[shard.box.tensor][
            _slices(shard.box.start, shard.box.shape)
        ]
    return locals_


def numbered(tensors: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Global tensors in which every element is another number."""
    values, first = {}, 1
    for name, shape in tensors.items():
        count = int(np.prod(shape, dtype=int))
        values[name] = np.arange(first, first + count).reshape(shape)
        first += count
    return values


def check_plan(
    plan: TransferPlan, source: Layout, destination: Layout, values: dict[str, np.ndarray], topology: Topology
) -> None:
    """Rules 1 to 4, element by element.

    Each is written exactly once and rightly; senders hold, or were sent, what they send; no rank receives
    more than it lacks, and no node more than it lacks.
    """
    held, wanted = paint(source, values, 0), paint(destination, values, 0)
    written = {rank: {n: np.zeros_like(t) for n, t in tensors.items()} for rank, tensors in wanted.items()}
    filled = {rank: {n: np.zeros_like(t) for n, t in tensors.items()} for rank, tensors in wanted.items()}
    received: dict = defaultdict(Counter)
    entered: dict = defaultdict(Counter)

    def write(rank, copies, elements):
        for region in copies:
            place = _slices(region.offset, region.shape)
            written[rank][region.local][place] += 1
            filled[rank][region.local][place] = elements

    for kept in plan.kept:
        for rank in kept.ranks:
            for region, copies in zip(kept.piece.sources(rank), kept.piece.targets(rank), strict=True):
                write(rank, copies, _held(held, rank, region))
    for stream in plan.streams:
        root = stream.route.root
        contents = [_held(held, root, region) for piece in stream.pieces for region in piece.sources(root)]
        assert stream.numel == sum(elements.size for elements in contents)
        informed = {root}
        for sender, receiver in stream.route.edges:
            assert sender in informed, f"{sender} has nothing to pass on to {receiver}"
            informed.add(receiver)
            copies = (copies for piece in stream.pieces for copies in piece.targets(receiver))
            for elements, places in zip(contents, copies, strict=True):
                assert places, f"{receiver} wants nothing of {elements}"
                write(receiver, places, elements)
                received[receiver].update(elements.flatten().tolist())
                if topology.node(sender) != topology.node(receiver):
                    entered[topology.node(receiver)].update(elements.flatten().tolist())
    for rank, tensors in wanted.items():
        for name, tensor in tensors.items():
            assert (written[rank][name] == (tensor != 0)).all(), f"not written exactly once: {name} on {rank}"
            assert (filled[rank][name] == tensor).all(), f"wrong elements in {name} on {rank}"
    for rank in wanted:
        lacking = _elements(wanted[rank]) - _elements(held.get(rank, {}))
        assert received[rank] == Counter(lacking), f"rank {rank} receives more or less than it lacks"
        assert plan.received.get(rank, 0) == len(lacking)
    assert plan.moved == sum(r.total() for r in received.values())
    for node, ranks in topology.by_node(wanted).items():
        beside = [rank for rank in held if topology.node(rank) == node]
        lacking = set().union(*(_elements(wanted[r]) for r in ranks))
        lacking -= set().union(*(_elements(held[r]) for r in beside))
        assert entered[node] == Counter(lacking), f"what enters node {node} is not what it lacks"
        assert plan.entered(topology).get(node, 0) == len(lacking)


def _held(held: dict, rank, region: Region) -> np.ndarray:
    elements = held[rank][region.local][_slices(region.offset, region.shape)]
    assert elements.shape == region.shape and elements.all(), f"{rank} lacks what it sends: {region}"
    return elements


def least_largest_egress(source: Layout, destination: Layout, values: dict[str, np.ndarray]) -> float:
    """The most that some sender must send: over sets of ranks, what only they can send, shared evenly."""
    held = {rank: _elements(tensors) for rank, tensors in paint(source, values, 0).items()}
    demand: Counter = Counter()
    for rank, tensors in paint(destination, values, 0).items():
        for element in _elements(tensors) - held.get(rank, set()):
            demand[frozenset(r for r in held if element in held[r])] += 1
    sets = itertools.chain.from_iterable(itertools.combinations(held, n) for n in range(1, len(held) + 1))
    return max(sum(n for who, n in demand.items() if who <= set(ranks)) / len(ranks) for ranks in sets)


def _elements(tensors: dict[str, np.ndarray]) -> set[int]:
    return {int(x) for tensor in tensors.values() for x in np.unique(tensor)} - {0}


def _slices(offset: tuple[int, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))
