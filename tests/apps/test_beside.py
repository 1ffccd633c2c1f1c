"""Where a call goes that runs beside another: with that one, unless a plan names it."""

from __future__ import annotations

import pytest

from realrl.api.configure import build_config
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.apps.checks import make_plan
from realrl.program.balance import assign
from realrl.recipes import RECIPES


def plan_of(*overrides: str, recipe: str = "grpo") -> dict[str, str]:
    config = build_config(RECIPES[recipe].default_config, None, overrides)
    plan = make_plan(RECIPES[recipe], config)
    assert list(plan.placements) == list(
        {**RECIPES[recipe].eval_graph(config).calls, **RECIPES[recipe].graph(config).calls}
    )
    return {call: str(placement) for call, placement in plan.placements.items()}


@pytest.mark.parametrize(
    ("allocation", "where"),
    [
        ("*:d2", "p1d2t1@[0-1]"),
        ("actor_gen:d2,*:p2", "p2d1t1@[0-1]"),
        ("gen.d2+p2", "p2d1t1@[2-3]"),
        ("actor_train:d2t2,*:d4", "p1d2t2@[0-3]"),
        ("actor_gen:d2,reward:d2,ref_inf:d2,actor_train:t2", "p1d1t2@[0-1]"),
        ("actor_train:t2,advantages:d2,*:d1", "p1d2t1@[0-1]"),
        ("advantages.t2+*:d1", "p1d2t1@[0-1]"),
    ],
)
def test_advantages_go_where_the_actor_trains(allocation, where):
    """Also in plans that name every call but this one; placed by name, each of its ranks has a share."""
    assert plan_of(f"allocation={allocation}")["advantages"] == where


def test_a_placement_in_full_names_it_too():
    found = plan_of("allocation=*:d2", "placements={advantages: {ranks: [0]}}")
    assert found["advantages"] == "p1d1t1@[0]" and found["actor_train"] == "p1d2t1@[0-1]"


@pytest.mark.parametrize("recipe", ["ppo", "ppo-math", "grpo", "dapo"])
def test_both_have_the_same_samples_on_each_rank(recipe):
    """Shares are balanced by the longest input, over as many mini-batches: those are the same."""
    config = RECIPES[recipe].default_config
    calls = RECIPES[recipe].graph(config).calls
    first, second = calls["advantages"], calls["actor_train"]
    assert first.num_minibatches == second.num_minibatches
    assert {"input_ids"} <= set(first.inputs) & set(second.inputs)
    lengths = [7 * i % 23 + 3 for i in range(32)]
    shares = [assign(lengths, 4, num_minibatches=call.num_minibatches) for call in (first, second)]
    assert shares[0] == shares[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call("a", None, CallKind.COMPUTE, ("rows",), beside="b"), "call a: beside 'b', which is no call"),
        (("a", "m", CallKind.TRAIN), "call a: beside is for compute calls, not train"),
    ],
)
def test_beside_what_is_not_there_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        DataflowGraph(call if isinstance(call, Call) else Call(*call, beside="b"))
