import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.plan import TransferPlan, plan
from tests.layouts.painting import check_plan, least_largest_egress, numbered, random_layout

SHAPES = st.lists(st.integers(1, 9), max_size=3).map(tuple)
TENSORS = st.lists(SHAPES, min_size=1, max_size=4).map(
    lambda shapes: {f"t{i}": s for i, s in enumerate(shapes)}
)
SEEDS = st.integers(0, 2**32)
RANKS = [0, 1, 2, "a.safetensors"]


def layouts(seed: int, tensors: dict) -> tuple[Layout, Layout]:
    rng = random.Random(seed)
    source = random_layout(rng, tensors, rng.sample(RANKS, rng.randint(1, 4)))
    return source, random_layout(rng, tensors, rng.sample(RANKS, rng.randint(1, 4)))


def cut(tensor: str, size: int, ranks, *, dim: int = 0, shape=(48, 48)) -> tuple[Shard, ...]:
    """`tensor` cut into `size` even parts along `dim`, part `i` on each of `ranks[i]`."""
    shards = []
    for i in range(size):
        start, stop = [0, 0], list(shape)
        start[dim], stop[dim] = i * shape[dim] // size, (i + 1) * shape[dim] // size
        shards += [Shard(rank, Box(tensor, tuple(start), tuple(stop)), tensor, (0, 0)) for rank in ranks[i]]
    return tuple(shards)


@settings(max_examples=300, deadline=None)
@given(TENSORS, SEEDS)
def test_every_element_is_written_once_from_a_holder_and_nothing_moves_in_vain(tensors, seed):
    """Rules 1 to 3 for arbitrary boxes, by painting."""
    source, destination = layouts(seed, tensors)
    check_plan(plan(source, destination), source, destination, numbered(tensors))


@settings(max_examples=60, deadline=None)
@given(TENSORS, SEEDS)
def test_the_plan_is_a_function_of_the_layouts(tensors, seed):
    """Fresh, equal layouts give an equal plan, so that every process finds the same."""
    assert plan(*layouts(seed, tensors)) == plan(*layouts(seed, tensors))


def faults(found: TransferPlan) -> dict[str, tuple]:
    """The copies of plans that are wrong in one place, by what is wrong."""
    crossing = next(copy for copy in found.copies if copy.crosses)
    kept = next(copy for copy in found.copies if not copy.crosses)
    rest = tuple(copy for copy in found.copies if copy is not crossing)
    row, column = crossing.source_offset
    return {
        "dropped": rest,
        "twice": (*found.copies, crossing),
        "wrong elements": (*rest, replace(crossing, source_offset=(row - 1, column))),
        "shorter": (*rest, replace(crossing, shape=(crossing.shape[0] - 1, crossing.shape[1]))),
        "from a stranger": (*rest, replace(crossing, source=3)),
        "in vain": tuple(replace(copy, source=2) if copy is kept else copy for copy in found.copies),
    }


@pytest.mark.parametrize(
    "fault", [None, "dropped", "twice", "wrong elements", "shorter", "from a stranger", "in vain"]
)
def test_the_painting_oracle_sees_planted_faults(fault):
    """`check_plan` passes the plan, and fails it for one wrong copy."""
    source = Layout(cut("w", 1, [(0, 2)]) + cut("other", 1, [(3,)]))
    destination = Layout(cut("w", 2, [(0,), (1,)]))
    judged = (source, destination, numbered({"w": (48, 48), "other": (48, 48)}))
    found = plan(source, destination)
    if fault is None:
        check_plan(found, *judged)
        return
    with pytest.raises((AssertionError, KeyError)):
        check_plan(TransferPlan(faults(found)[fault]), *judged)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_the_largest_egress_is_near_its_lower_bound(seed):
    """Rule 5, against brute force over all sets of senders, also where holders overlap in chains."""
    rng = random.Random(seed)
    tensors = {f"t{i}": (rng.randint(30, 60), rng.randint(30, 60)) for i in range(3)}
    source = random_layout(rng, tensors, [0, 1, 2, 3])
    destination = random_layout(rng, tensors, [2, 3, 4, 5])
    found = plan(source, destination)
    largest = max(sent_elements(found, rank) for rank in found.ranks)
    chunk = max(256, found.moved_elements() // 256)
    assert largest <= 1.05 * least_largest_egress(source, destination, numbered(tensors)) + 2 * chunk


def test_replicas_share_the_sending_of_one_large_tensor():
    """Three holders of a weight that one new rank needs send a third each, up to a few percent."""
    source = Layout(cut("w", 1, [(0, 1, 2)], shape=(3000, 64)))
    found = plan(source, Layout(cut("w", 1, [(3,)], shape=(3000, 64))))
    assert max(sent_elements(found, rank) for rank in (0, 1, 2)) <= 1.05 * 3000 * 64 / 3


def test_a_chain_of_holders_is_balanced_through_its_middle():
    """Held by {0, 1} and by {1, 2}: the first greedy choice would leave rank 1 with too much."""
    shape = (960, 64)
    source = Layout(cut("a", 1, [(0, 1)], shape=shape) + cut("b", 1, [(1, 2)], shape=shape))
    found = plan(source, Layout(cut("a", 1, [(3,)], shape=shape) + cut("b", 1, [(3,)], shape=shape)))
    assert max(sent_elements(found, rank) for rank in (0, 1, 2)) <= 1.05 * 2 * 960 * 64 / 3


def test_degrees_that_do_not_divide_each_other():
    """From three row shards to two column shards over disjoint ranks each lacks, and gets, its half."""
    source, destination = Layout(cut("w", 3, [(0,), (1,), (2,)])), Layout(cut("w", 2, [(3,), (4,)], dim=1))
    found = plan(source, destination)
    check_plan(found, source, destination, numbered({"w": (48, 48)}))
    assert [found.received_elements(rank) for rank in (3, 4)] == [48 * 24] * 2


def test_an_equal_layout_moves_nothing():
    """What a rank already holds never leaves it."""
    layout = Layout(cut("w", 2, [(0, 1), (2, 3)]))
    assert plan(layout, layout).moved_elements() == 0


def test_a_box_wanted_twice_by_a_rank_crosses_once():
    """A tied embedding and head on one rank: two writes, one payload."""
    box = Box("w", (0,), (6,))
    source = Layout((Shard(0, box, "w", (0,)),))
    destination = Layout((Shard(1, box, "embed", (0,)), Shard(1, box, "head", (2,))))
    found = plan(source, destination)
    check_plan(found, source, destination, numbered({"w": (6,)}))
    assert (len(found.copies), found.moved_elements()) == (2, 6)


def test_what_nobody_holds_is_refused_by_name_and_range():
    """The message names the tensor, the range and the rank that needs it."""
    source = Layout((Shard(0, Box("w", (0, 0), (4, 8)), "w", (0, 0)),))
    destination = Layout((Shard(1, Box("w", (2, 0), (6, 8)), "w", (0, 0)),))
    with pytest.raises(ValueError, match=r"rank 1 needs w\[4:6, 0:8\]"):
        plan(source, destination)
    with pytest.raises(ValueError, match=r"needs x\[0:2\]"):
        plan(source, Layout((Shard(1, Box("x", (0,), (2,)), "x", (0,)),)))


def test_empty_boxes_need_nothing():
    """A sample without tokens is a box without elements."""
    destination = Layout((Shard(1, Box("w", (3,), (3,)), "w", (0,)),))
    assert plan(Layout(()), destination).copies == ()


def test_many_samples_are_planned_in_a_moment():
    """A batch is one tensor of thousands of boxes; only near boxes are compared."""
    samples = [Box("input_ids", (100 * i,), (100 * i + 100,)) for i in range(4000)]
    source = Layout(tuple(Shard(i % 4, box, f"s{i}", (0,)) for i, box in enumerate(samples)))
    destination = Layout(tuple(Shard(4 + i % 3, box, f"s{i}", (0,)) for i, box in enumerate(samples)))
    assert len(plan(source, destination).copies) == 4000


def sent_elements(found: TransferPlan, rank: int) -> int:
    """Elements that leave a rank; what is written twice on arrival is sent once."""
    crossing = {copy.payload: copy.numel for copy in found.by_source.get(rank, ()) if copy.crosses}
    return sum(crossing.values())
