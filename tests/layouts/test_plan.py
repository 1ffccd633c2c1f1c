import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.layouts.layout import Box, Layout, Part, Pattern, Shard
from realrl.layouts.plan import Kept, Piece, Stream, TransferPlan, cached_plan, plan
from realrl.layouts.routes import Route
from realrl.layouts.topology import ONE_NODE, Topology
from tests.layouts.painting import all_shards, check_plan, least_largest_egress, numbered, random_layout

SHAPES = st.lists(st.integers(1, 9), max_size=3).map(tuple)
TENSORS = st.lists(SHAPES, min_size=1, max_size=4).map(
    lambda shapes: {f"t{i}": s for i, s in enumerate(shapes)}
)
SEEDS = st.integers(0, 2**32)
RANKS = [0, 1, 2, 3, 4, "a.safetensors"]


def layouts(seed: int, tensors: dict) -> tuple[Layout, Layout, Topology]:
    """Layouts over some of the ranks, and the ranks on nodes whose links make every kind of route likely."""
    rng = random.Random(seed)
    source = random_layout(rng, tensors, rng.sample(RANKS, rng.randint(1, 5)))
    destination = random_layout(rng, tensors, rng.sample(RANKS, rng.randint(1, 5)))
    num_nodes = rng.randint(1, 3)
    topology = Topology(
        nodes={rank: rng.randrange(num_nodes) for rank in RANKS},
        link_bytes_s=rng.choice([1, 100, 1e4]),
        nic_bytes_s=rng.choice([1, 100]),
        node_nic_bytes_s=rng.choice([1, 200, 1e4]),
        latency_s=rng.choice([0, 0, 1e-3, 10]),
        shared_memory=rng.random() < 0.3,
    )
    return source, destination, topology


def cut(tensor: str, size: int, ranks, *, dim: int = 0, shape=(48, 48)) -> tuple[Shard, ...]:
    """`tensor` cut into `size` even parts along `dim`, part `i` on each of `ranks[i]`."""
    shards = []
    for i in range(size):
        start, stop = [0, 0], list(shape)
        start[dim], stop[dim] = i * shape[dim] // size, (i + 1) * shape[dim] // size
        shards += [Shard(rank, Box(tensor, tuple(start), tuple(stop)), tensor, (0, 0)) for rank in ranks[i]]
    return tuple(shards)


@settings(max_examples=400, deadline=None)
@given(TENSORS, SEEDS)
def test_every_element_is_written_once_and_crosses_no_more_than_it_must(tensors, seed):
    """Rules 1 to 4 for arbitrary boxes, nodes and links, by painting."""
    source, destination, topology = layouts(seed, tensors)
    check_plan(plan(source, destination, topology), source, destination, numbered(tensors), topology)


@settings(max_examples=60, deadline=None)
@given(TENSORS, SEEDS)
def test_the_plan_is_a_function_of_the_layouts(tensors, seed):
    """Fresh, equal layouts give an equal plan, so that every process finds the same."""
    first, second = (described(plan(*layouts(seed, tensors))) for _ in range(2))
    assert first == second


def described(found: TransferPlan) -> list:
    return [
        (stream.route, [list(piece.sources(stream.route.root)) for piece in stream.pieces])
        for stream in found.streams
    ]


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_pattern_stands_for_its_tensors(seed):
    """A layout of patterns is planned as the same layout written out tensor by tensor."""
    rng = random.Random(seed)
    source, destination = (repeated(rng, rng.sample(range(4), rng.randint(1, 4))) for _ in range(2))
    written_out = [Layout.of(list(all_shards(layout))) for layout in (source, destination)]
    tensors = {f"layer.{key}.w": (6, 4) for key in "abc"}
    assert {t for p in source.patterns for t in p.tensors} == tensors.keys()
    for pair in ((source, destination), (source, written_out[1]), (written_out[0], destination)):
        check_plan(plan(*pair), *written_out, numbered(tensors), ONE_NODE)


def repeated(rng: random.Random, ranks: list[int]) -> Layout:
    """Three tensors in one pattern, or in two."""
    parts = [
        Part((s.rank,), s.box.start, s.box.stop, "local.*." + s.local, s.offset)
        for s in all_shards(random_layout(rng, {"w": (6, 4)}, ranks))
    ]
    if rng.random() < 0.5:
        return Layout((Pattern("layer.*.w", tuple(parts), ("a", "b", "c")),))
    whole = Part((rng.choice(ranks),), (0, 0), (6, 4), "local.*", (0, 0))
    return Layout(
        (Pattern("layer.*.w", tuple(parts), ("a", "c")), Pattern("layer.*.w", (whole,), ("b",))),
    )


def faults(found: TransferPlan) -> dict[str, TransferPlan]:
    """Plans that are wrong in one place, by what is wrong."""
    first, *others = found.streams
    (kept,) = found.kept
    (piece,) = first.pieces
    (sender, receiver), *further = first.route.edges
    row, column = piece.stop
    shorter = Piece(piece.block, piece.first, piece.last, piece.start, (row - 1, column))
    beyond = Route(first.route.root, (*first.route.edges, (1, 5)))
    relayed_by_none = Route(first.route.root, ((5, receiver), *further))
    second_entry = Route(first.route.root, ((sender, receiver), *((sender, r) for _, r in further)))
    rank = next(iter(kept.ranks))

    def made(streams, kept=found.kept) -> TransferPlan:
        return TransferPlan(tuple(streams), tuple(kept), found.topology)

    return {
        "dropped": made(others),
        "twice": made([*found.streams, first]),
        "shorter": made([*others, Stream(first.route, (shorter,))]),
        "kept dropped": made(found.streams, []),
        "in vain": made([*found.streams, Stream(Route(0, ((0, rank),)), (kept.piece,))], []),
        "kept by a stranger": made(found.streams, [Kept(frozenset({5}), kept.piece)]),
        "to a stranger": made([*others, Stream(beyond, first.pieces)]),
        "from one who has nothing": made([*others, Stream(relayed_by_none, first.pieces)]),
        "into a node twice": made([*others, Stream(second_entry, first.pieces)]),
    }


FAULTS = [
    "dropped",
    "twice",
    "shorter",
    "kept dropped",
    "in vain",
    "kept by a stranger",
    "to a stranger",
    "from one who has nothing",
    "into a node twice",
]


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_the_painting_oracle_sees_planted_faults(fault):
    """`check_plan` passes the plan, and fails it for one wrong stream."""
    topology = Topology(nodes={0: "a", 1: "b", 2: "b", 5: "c"})
    source = Layout.of(cut("w", 1, [(0,)]) + cut("other", 1, [(5,)]))
    destination = Layout.of(cut("w", 1, [(0, 1, 2)]))
    judged = (source, destination, numbered({"w": (48, 48), "other": (48, 48)}), topology)
    found = plan(source, destination, topology)
    if fault is None:
        check_plan(found, *judged)
        return
    with pytest.raises((AssertionError, KeyError)):
        check_plan(faults(found)[fault], *judged)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_the_largest_egress_is_within_two_percent_of_its_lower_bound(seed):
    """Rule 5, against brute force over all sets of senders, also where holders overlap in chains.

    A tensor is cut between rows, so half a row may be added at each end of what a rank sends.
    """
    rng = random.Random(seed)
    tensors = {f"t{i}": (rng.randint(100, 200), rng.randint(1, 40)) for i in range(3)}
    source = random_layout(rng, tensors, [0, 1, 2, 3])
    destination = random_layout(rng, tensors, [2, 3, 4, 5])
    found = plan(source, destination)
    ends = 2 * max(len(found.by_rank.get(rank, ())) for rank in range(4))
    largest = max(found.sent.values(), default=0)
    assert largest <= 1.02 * least_largest_egress(source, destination, numbered(tensors)) + 20 * ends


@pytest.mark.parametrize("num_holders", [2, 3, 5])
def test_replicas_share_the_sending_of_one_large_tensor(num_holders):
    """Holders of a weight that one new rank needs send even parts."""
    source = Layout.of(cut("w", 1, [tuple(range(num_holders))], shape=(3000, 64)))
    found = plan(source, Layout.of(cut("w", 1, [(9,)], shape=(3000, 64))))
    assert max(found.sent.values()) <= 1.005 * 3000 * 64 / num_holders


def test_a_chain_of_holders_is_balanced_through_its_middle():
    """Held by {0, 1} and by {1, 2}: shared one by one, rank 1 would be left with too much."""
    shape = (960, 64)
    source = Layout.of(cut("a", 1, [(0, 1)], shape=shape) + cut("b", 1, [(1, 2)], shape=shape))
    found = plan(source, Layout.of(cut("a", 1, [(3,)], shape=shape) + cut("b", 1, [(3,)], shape=shape)))
    assert max(found.sent.values()) <= 1.005 * 2 * 960 * 64 / 3


@pytest.mark.parametrize(("num_holders", "num_lacking"), [(1, 3), (1, 7), (2, 6), (3, 5)])
def test_those_who_lack_pass_on_what_they_get_where_it_helps(num_holders, num_lacking):
    """Links of one rate and no latency: all ranks send alike, or each holder sends its part once."""
    shape, num = (4096, 64), num_holders + num_lacking
    source = Layout.of(cut("w", 1, [tuple(range(num_holders))], shape=shape))
    destination = Layout.of(cut("w", 1, [tuple(range(num_holders, num))], shape=shape))
    topology = Topology(latency_s=0.0)
    found = plan(source, destination, topology)
    check_plan(found, source, destination, numbered({"w": shape}), topology)
    least = shape[0] * shape[1] * max(num_lacking / num, 1 / num_holders)
    assert max(found.sent.values()) <= 1.02 * least


def test_relays_wait_for_what_is_worth_their_latency():
    """A small weight goes to each rank at once, whatever the sender's load."""
    source, destination = Layout.of(cut("w", 1, [(0,)])), Layout.of(cut("w", 1, [(1, 2, 3)]))
    (stream,) = plan(source, destination).streams
    assert stream.route == Route(0, ((0, 1), (0, 2), (0, 3)))


@pytest.mark.parametrize("shared_memory", [False, True])
def test_nodes_pass_on_what_they_get_whatever_their_memory(shared_memory):
    """One holder and seven other nodes with NICs as fast as their links: it sends little more than once."""
    shape = (4096, 64)
    source = Layout.of(cut("w", 1, [(0,)], shape=shape))
    destination = Layout.of(cut("w", 1, [tuple(range(1, 8))], shape=shape))
    topology = Topology(
        nodes={rank: rank for rank in range(8)},
        link_bytes_s=5e9,
        nic_bytes_s=5e9,
        latency_s=0.0,
        shared_memory=shared_memory,
    )
    found = plan(source, destination, topology)
    check_plan(found, source, destination, numbered({"w": shape}), topology)
    assert max(found.sent.values()) <= 1.02 * shape[0] * shape[1]


def test_degrees_that_do_not_divide_each_other():
    """From three row shards to two column shards over disjoint ranks each lacks, and gets, its half."""
    source, destination = (
        Layout.of(cut("w", 3, [(0,), (1,), (2,)])),
        Layout.of(cut("w", 2, [(3,), (4,)], dim=1)),
    )
    found = plan(source, destination)
    check_plan(found, source, destination, numbered({"w": (48, 48)}), ONE_NODE)
    assert [found.received[rank] for rank in (3, 4)] == [48 * 24] * 2


def flat_shards(tensors: dict, cuts: list[int]) -> list[Shard]:
    """Matrices laid end to end and cut anywhere, as an optimizer shards its states: share `i` on rank `i`.

    What a share has of a matrix is a part of a row, whole rows and a part of a row, each a tensor of its own.
    """
    shards, begin = [], 0
    for name, (rows, columns) in tensors.items():
        for rank, (low, high) in enumerate(pairwise(cuts)):
            low, high = (min(max(edge - begin, 0), rows * columns) for edge in (low, high))
            rows_from, rows_to = min(-(-low // columns) * columns, high), max(high // columns * columns, low)
            for part, (a, b) in enumerate(pairwise(sorted({low, rows_from, rows_to, high}))):
                row, stop = a // columns, -(-b // columns)
                column, last = (a % columns, b - row * columns) if stop - row == 1 else (0, columns)
                shards.append(Shard(rank, Box(name, (row, column), (stop, last)), f"{name}/{part}", (0, 0)))
        begin += rows * columns
    return shards


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 12 * 7 + 5 * 9), min_size=1, max_size=3).map(sorted))
def test_optimizer_shards_become_tensor_shards_and_back(cuts):
    """Flat shares of any length, which end within a row or hold nothing, and column shards."""
    tensors = {"a": (12, 7), "b": (5, 9)}
    sharded = Layout.of(flat_shards(tensors, [0, *cuts, 12 * 7 + 5 * 9]))
    halves = [cut(name, 2, [(0, 2), (1, 3)], dim=1, shape=shape) for name, shape in tensors.items()]
    columns = Layout.of(shard for shards in halves for shard in shards)
    for source, destination in ((sharded, columns), (columns, sharded)):
        check_plan(plan(source, destination), source, destination, numbered(tensors), ONE_NODE)


def test_an_equal_layout_moves_nothing():
    """What a rank already holds never leaves it."""
    layout = Layout.of(cut("w", 2, [(0, 1), (2, 3)]))
    assert plan(layout, layout).moved == 0


def test_a_box_wanted_twice_by_a_rank_crosses_once():
    """A tied embedding and head on one rank: two places, one crossing."""
    box = Box("w", (0,), (6,))
    source = Layout.of((Shard(0, box, "w", (0,)),))
    destination = Layout.of((Shard(1, box, "embed", (0,)), Shard(1, box, "head", (2,))))
    found = plan(source, destination)
    check_plan(found, source, destination, numbered({"w": (6,)}), ONE_NODE)
    assert found.moved == 6


def test_what_nobody_holds_is_refused_by_name_and_range():
    """The message names the tensor, the range and the rank that needs it."""
    source = Layout.of((Shard(0, Box("w", (0, 0), (4, 8)), "w", (0, 0)),))
    destination = Layout.of((Shard(1, Box("w", (2, 0), (6, 8)), "w", (0, 0)),))
    with pytest.raises(ValueError, match=r"rank 1 needs w\[4:6, 0:8\]"):
        plan(source, destination)
    with pytest.raises(ValueError, match=r"needs x\[0:2\]"):
        plan(source, Layout.of((Shard(1, Box("x", (0,), (2,)), "x", (0,)),)))


def test_empty_boxes_need_nothing():
    """A sample without tokens is a box without elements."""
    destination = Layout.of((Shard(1, Box("w", (3,), (3,)), "w", (0,)),))
    assert plan(Layout(()), destination).streams == ()


def test_many_boxes_of_one_tensor_are_planned_in_a_moment():
    """Only boxes that meet are compared: the square of their number would take minutes."""
    boxes = [Box("ids", (100 * i,), (100 * i + 100,)) for i in range(4000)]
    source = Layout.of(tuple(Shard(i % 4, box, f"s{i}", (0,)) for i, box in enumerate(boxes)))
    destination = Layout.of(tuple(Shard(4 + i % 3, box, f"s{i}", (0,)) for i, box in enumerate(boxes)))
    found = plan(source, destination)
    assert found.moved == 400_000 and len(found.streams) == 12


def test_a_plan_is_found_again():
    """The same layouts are not planned twice."""
    layout, other = Layout.of(cut("w", 1, [(0,)])), Layout.of(cut("w", 1, [(1,)]))
    assert cached_plan(layout, other) is cached_plan(layout, other)
    assert replace(ONE_NODE) is not ONE_NODE
    assert cached_plan(layout, other, replace(ONE_NODE)) is not cached_plan(layout, other)
