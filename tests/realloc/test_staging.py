import itertools
import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.pieces import Region
from realrl.layouts.plan import plan
from realrl.layouts.routes import Route
from realrl.layouts.topology import Topology
from realrl.ops.box_rows import ALIGNMENT
from realrl.realloc.staging import bundle_bytes, places
from realrl.realloc.stream_messages import bundles, messages
from tests.layouts.test_plan import layouts

DTYPES = st.sampled_from([torch.int8, torch.bfloat16, torch.float64, torch.complex128])
SHAPES = st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), max_size=6)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1 << 12, 1 << 16))
def test_no_rank_has_room_for_more_than_the_bound(seed, staging_bytes):
    """Rule 6, over everything that a rank keeps room for."""
    source, destination, topology = layouts(seed, {"a": (7, 5), "b": (13,), "c": (3, 4, 5), "d": ()})
    found = plan(source, destination, topology)
    located = [places(stream.route, topology) for stream in found.streams]
    try:
        limit = bundle_bytes(found, located, staging_bytes)
    except ValueError:
        assert max(slots_of(located).values()) * ALIGNMENT > staging_bytes
        return
    assert max(slots_of(located).values(), default=0) * limit <= staging_bytes


def slots_of(located: list) -> Counter:
    slots: Counter = Counter()
    for rank, place in (item for members in located for item in members.items()):
        slots[rank] += place.num_slots
    return slots


def regions_of(shapes: list) -> list[tuple[Region]]:
    """A region of one copy for each shape; its name is its index."""
    return [(Region(str(i), str(i), (0,) * len(shape), shape),) for i, shape in enumerate(shapes)]


@settings(max_examples=200, deadline=None)
@given(
    SHAPES,
    st.lists(
        st.sampled_from([torch.int8, torch.bfloat16, torch.float64, torch.complex128]), min_size=6, max_size=6
    ),
    st.integers(1, 20),
)
def test_messages_hold_every_element_once_without_overlap(shapes, dtypes, num_lines):
    """Blocks begin aligned, one after another, and cover each region exactly."""
    limit, covered = num_lines * ALIGNMENT, Counter()
    for message in messages(regions_of(shapes), dtypes[: len(shapes)], limit):
        end = 0
        for copy, dtype, offset, shape, begin in message.entries:
            region = int(copy.tensor)
            assert begin >= end and begin % ALIGNMENT == 0 and dtype == dtypes[region]
            end = begin + math.prod(shape) * dtype.itemsize
            ranges = (range(o, o + n) for o, n in zip(offset, shape, strict=True))
            covered.update((region, index) for index in itertools.product(*ranges))
        assert end <= message.num_bytes <= limit
    expected = ((i, index) for i, s in enumerate(shapes) for index in itertools.product(*map(range, s)))
    assert covered == Counter(expected)


@settings(max_examples=100, deadline=None)
@given(SHAPES.filter(len), st.integers(1, 20), st.integers(1, 5))
def test_bundles_hold_every_message_in_order_within_the_limit(shapes, num_lines, times):
    """Consecutive, none empty, and no longer than allowed."""
    limit = num_lines * ALIGNMENT
    regions = regions_of([(8 * times, *shape) for shape in shapes])
    stream = list(messages(regions, [torch.int64] * len(shapes), limit))
    found = list(bundles(stream, limit))
    assert [m for bundle in found for m in bundle] == list(range(len(stream)))
    assert all(0 < sum(stream[m].num_bytes for m in bundle) <= limit for bundle in found)


def random_route(rng: random.Random, ranks: list[int]) -> Route:
    root, *others = ranks
    informed, edges = [root], []
    for rank in others:
        edges.append((rng.choice(informed), rank))
        informed.append(rank)
    return Route(root, tuple(edges))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32))
def test_each_rank_gets_a_message_from_one_place(seed):
    """A reader reads from a relay of its node; a relay other than the root is the child of one relay."""
    rng = random.Random(seed)
    ranks = rng.sample(range(8), rng.randint(2, 8))
    topology = Topology(nodes={rank: rank // 3 for rank in ranks}, shared_memory=rng.random() < 0.7)
    route = by_node(random_route(rng, ranks), topology)
    found = places(route, topology)
    assert found.keys() == set(ranks) and found[route.root].parent is None
    served = Counter(r for p in found.values() for r in (*p.children, *p.readers))
    assert served == Counter(set(ranks) - {route.root})
    for rank, place in found.items():
        for reader in place.readers:
            assert topology.shared_memory and topology.node(reader) == topology.node(rank)
            assert found[reader].parent == rank and not found[reader].is_relay
        for child in place.children:
            assert found[child].is_relay and found[child].parent == rank and place.is_relay
            assert found[child].depth == place.depth + 1


def by_node(route: Route, topology: Topology) -> Route:
    """The same edges, but all that leave a node leave it from the first rank reached, as planned."""
    first: dict = {topology.node(route.root): route.root}
    edges = []
    for sender, receiver in route.edges:
        node = topology.node(receiver)
        if node in first:
            edges.append((first[node], receiver))
        else:
            first[node] = receiver
            edges.append((first[topology.node(sender)], receiver))
    return Route(route.root, tuple(edges))


def test_too_little_staging_is_refused():
    """A setting with no room for an element says how much is needed."""
    box = Box("w", (0,), (4,))
    found = plan(Layout.of((Shard(0, box, "w", (0,)),)), Layout.of((Shard(1, box, "w", (0,)),)))
    located = [places(stream.route, found.topology) for stream in found.streams]
    with pytest.raises(ValueError, match="staging_bytes must be at least 128 .* got 127"):
        bundle_bytes(found, located, 127)
