"""Allocation strings: which ranks and layout each call gets, and what is refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.allocation import parse_allocation, parse_layout
from realrl.api.config import PlacementConfig
from realrl.api.mesh import ParallelLayout

CALLS = ("actor_gen", "reward", "ref_inf", "actor_train")


def places(text, placements=None, calls=CALLS) -> dict[str, str]:
    plan = parse_allocation(text, calls, ("actor_gen",), placements or {})
    return {call: str(placement) for call, placement in plan.placements.items()}


@given(
    st.permutations(["d", "t", "p"]), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.booleans()
)
def test_letters_come_in_any_order(order, d, t, p, megatron):
    """`m` is another name of `t`."""
    counts = {"d": d, "t": t, "p": p}
    text = "".join(f"{'m' if megatron and axis == 't' else axis}{counts[axis]}" for axis in order)
    assert parse_layout(text) == ParallelLayout(pp=p, dp=d, tp=t)


@pytest.mark.parametrize(
    ("text", "gen", "others"),
    [
        ("*:d1", "p1d1t1@[0]", "p1d1t1@[0]"),
        ("d2", "p1d2t1@[0-1]", "p1d2t1@[0-1]"),
        ("actor_gen:d2,*:p2", "p1d2t1@[0-1]", "p2d1t1@[0-1]"),
        (" actor_gen:d2 , *:p2 ", "p1d2t1@[0-1]", "p2d1t1@[0-1]"),
        ("actor_gen:d4,*:p2t2", "p1d4t1@[0-3]", "p2d1t2@[0-3]"),
        ("gen:d4,*:t2", "p1d4t1@[0-3]", "p1d1t2@[0-1]"),
        ("gen.d2+p2", "p1d2t1@[0-1]", "p2d1t1@[2-3]"),
        ("p2+gen.d3", "p1d3t1@[2-4]", "p2d1t1@[0-1]"),
        ("actor_gen.d2+m2d2", "p1d2t1@[0-1]", "p1d2t2@[2-5]"),
        ("critic_*:d8,*:d1", "p1d1t1@[0]", "p1d1t1@[0]"),
        ("gen:d2,*:v3p2", "p1d2t1@[0-1]", "p2v3d1t1@[0-1]"),
    ],
)
def test_shared_and_disjoint_forms(text, gen, others):
    found = places(text)
    assert found.pop("actor_gen") == gen
    assert set(found.values()) == {others}


def test_each_mesh_may_be_shared_by_several_items():
    """Meshes follow each other; a mesh is as wide as its widest item."""
    assert places("gen.d2+ref_*:t4,reward:d1,*:p2") == {
        "actor_gen": "p1d2t1@[0-1]",
        "reward": "p1d1t1@[2]",
        "ref_inf": "p1d1t4@[2-5]",
        "actor_train": "p2d1t1@[2-3]",
    }


def test_the_next_mesh_begins_after_the_widest_item():
    found = places("gen:d3,ref_inf:d1+p2")
    assert (found["ref_inf"], found["actor_gen"]) == ("p1d1t1@[0]", "p1d3t1@[0-2]")
    assert found["actor_train"] == found["reward"] == "p2d1t1@[3-4]"


def test_the_first_item_that_fits_takes_the_call():
    assert places("*_train:t2,actor_*:d2,*:p2")["actor_train"] == "p1d1t2@[0-1]"


def test_placements_in_full_go_first():
    """A call placed in full may still be named in the string."""
    placement = {"ref_inf": PlacementConfig(ranks=(2, 3), tp=2)}
    expected = {call: "p1d2t1@[0-1]" for call in CALLS} | {"ref_inf": "p1d1t2@[2-3]"}
    assert places("*:d2", placement) == expected
    assert places("ref_inf:p2,*:d2", placement) == expected
    in_full = {call: PlacementConfig(ranks=(0,)) for call in CALLS}
    assert set(places("actor_gen:d2,*:p2", in_full).values()) == {"p1d1t1@[0]"}


@given(st.data())
def test_every_call_has_a_place_and_every_rank_a_call(data):
    """Any string of the grammar that is taken gives a plan without holes."""
    layout = st.tuples(*[st.integers(1, 3)] * 3).map(lambda n: f"d{n[0]}p{n[1]}t{n[2]}")
    meshes = data.draw(
        st.lists(st.tuples(st.sampled_from(CALLS), layout), max_size=3, unique_by=lambda m: m[0])
    )
    text = "+".join([*(f"{call}.{cut}" for call, cut in meshes), data.draw(layout)])
    plan = parse_allocation(text, CALLS, ("actor_gen",), {})
    assert set(plan.placements) == set(CALLS)
    used = list(itertools.chain.from_iterable({p.ranks for p in plan.placements.values()}))
    assert sorted(used) == list(range(plan.num_workers)), "disjoint, and without gaps"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no item .* fits actor_gen, reward, ref_inf, actor_train"),
        ("gen.d2", "no item .* fits reward, ref_inf, actor_train; add an item"),
        ("d2d3", "'d2d3' gives dp twice"),
        ("t2m2", "'t2m2' gives tp twice"),
        ("z2", "the letter 'z'"),
        ("d0", "each count from 1"),
        ("d2v2", "layout.vp must be 1 where there is one pipeline stage"),
        ("d131072t2", "at most"),
        ("d", "cannot read 'd'"),
        ("d2,,p2", "cannot read ''"),
        ("d2+", "cannot read ''"),
        ("actor gen:d2", "cannot read 'actor gen:d2'"),
        ("actor_gem:d1,*:d1", "'actor_gem:d1' names no call; .*did you mean actor_gen?"),
        ("*:d1,actor_gen:d2", "'actor_gen:d2' comes too late"),
        ("*:p2,*:d2", "'\\*:d2' comes too late"),
        ("gen.d2+p2+d1", "'d1' comes too late"),
        ("actor_*:d2,*_train:t2,*:p2", "'\\*_train:t2' comes too late"),
        ("critic_*.d2+d2", "2 of the ranks 0 to 3 run no call"),
        ("p" + "9" * 5000, "cannot read"),
    ],
)
def test_what_is_refused(text, message):
    """Each message names the key and shows how it is done."""
    with pytest.raises(ValueError, match=message) as refused:
        places(text)
    assert str(refused.value).startswith("allocation: ") and "actor_gen:d2,*:p2" in str(refused.value)


def test_gen_where_no_call_generates():
    with pytest.raises(ValueError, match="'gen:d2' names no call; the calls are train"):
        parse_allocation("gen:d2,*:d1", ["train"], (), {})


@pytest.mark.parametrize(
    ("name", "placement", "message"),
    [
        ("ref_inf", PlacementConfig(ranks=(0,), tp=2), "placements.ref_inf: layout p1d1t2 needs 2 ranks"),
        ("ref_inf", PlacementConfig(ranks=(0, 0), tp=2), "placements.ref_inf: .*distinct ranks"),
        ("ref_inf", PlacementConfig(ranks=(3, 2), tp=2), "placements.ref_inf: .*in ascending order"),
        ("ref_inf", PlacementConfig(ranks=(-1,)), "placements.ref_inf: .*from 0 up"),
        ("ref_inf", PlacementConfig(ranks=(0,), dp=0), "placements.ref_inf: layout.dp must be at least 1"),
        ("ref_int", PlacementConfig(ranks=(0,)), "placements.ref_int: there is no such call; .*ref_inf?"),
        ("ref_inf", PlacementConfig(ranks=(7,)), "6 of the ranks 0 to 7 run no call"),
    ],
)
def test_placements_that_are_refused(name, placement, message):
    with pytest.raises(ValueError, match=message):
        places("*:d1", {name: placement})
