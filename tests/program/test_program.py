"""Compiling a graph."""

from dataclasses import replace

import pytest

from realrl.api.config import ModelConfig
from realrl.api.graph import Blend, CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.program.instructions import Offload, Reallocate, Release, RunCall, Save, Snapshot
from realrl.program.program import (
    compile_program,
    compile_recovery,
    compile_save,
    home_placements,
)
from tests.program.graphs import place, ppo_graph

D2, T2 = place(0, ParallelLayout(dp=2)), place(0, ParallelLayout(tp=2))


def _plan(**others):
    graph = ppo_graph()
    return graph, ExecutionPlan({name: others.get(name, T2) for name in graph.calls})


def _compiled(graph, plan):
    return compile_program(graph, plan, home_placements(graph, plan)).instructions


def _names(nodes):
    return [f"{type(n).__name__} {n.call}" for n in nodes if isinstance(n, (RunCall, Reallocate, Release))]


def test_a_model_lives_where_it_is_trained():
    """Even though generation comes first."""
    graph, plan = _plan(actor_gen=D2)
    assert home_placements(graph, plan)["actor"] == T2


def test_an_away_call_stands_between_reallocation_and_release():
    """And only that call has them."""
    names = _names(_compiled(*_plan(actor_gen=D2)))
    assert names[:3] == ["Reallocate actor_gen", "RunCall actor_gen", "Release actor_gen"]
    assert sum(name.startswith("Re") for name in names) == 2


def test_at_home_nothing_is_reallocated():
    """One layout for all calls moves no weights."""
    assert all(name.startswith("RunCall") for name in _names(_compiled(*_plan())))


def test_another_engine_gets_weights_even_at_home():
    """And only its call has them."""
    graph, plan = _plan()
    calls = {
        name: replace(c, engine="other") if name == "actor_gen" else c for name, c in graph.calls.items()
    }
    nodes = _compiled(DataflowGraph(*calls.values(), per_sample=("rewards",)), plan)
    assert _names(nodes)[:3] == ["Reallocate actor_gen", "RunCall actor_gen", "Release actor_gen"]
    moved = [(n.source, n.target, n.engine) for n in nodes if isinstance(n, Reallocate)]
    assert moved == [(T2, T2, "other")]


def test_another_engine_only_generates():
    with pytest.raises(ValueError, match="other is for generate calls, not train"):
        ModelFunctionCall("one", "m", CallKind.TRAIN, ("x",), engine="other")


def _two_uses(between: CallKind):
    graph = DataflowGraph(
        ModelFunctionCall("one", "m", CallKind.INFERENCE, ("x",), ("a",)),
        ModelFunctionCall("two", "m", between, ("a",), ("b",)),
        ModelFunctionCall("three", "m", CallKind.INFERENCE, ("b",), ("c",)),
        ModelFunctionCall("four", "m", CallKind.TRAIN, ("c",)),
    )
    return graph, ExecutionPlan({"one": D2, "two": T2, "three": D2, "four": T2})


def test_a_replica_serves_all_calls_of_a_step():
    """It is released by its last user, and made again only if the model was trained meanwhile."""
    kept = _names(_compiled(*_two_uses(CallKind.INFERENCE)))
    assert kept == [
        "Reallocate one",
        "RunCall one",
        "RunCall two",
        "RunCall three",
        "Release three",
        "RunCall four",
    ]
    trained = _names(_compiled(*_two_uses(CallKind.TRAIN)))
    assert [name for name in trained if name.startswith("Realloc")] == ["Reallocate one", "Reallocate three"]


def test_a_model_is_trained_at_one_place():
    """Optimizer states do not move: two train placements are the user's error."""
    graph = DataflowGraph(
        ModelFunctionCall("one", "m", CallKind.TRAIN, ("x",)),
        ModelFunctionCall("two", "m", CallKind.TRAIN, ("x",)),
    )
    with pytest.raises(ValueError, match="allocation: m is trained"):
        home_placements(graph, ExecutionPlan({"one": D2, "two": T2}))


def test_only_trained_models_are_saved():
    """In the graph of PPO: actor and critic."""
    graph, plan = _plan(actor_gen=D2)
    nodes = compile_save(graph, home_placements(graph, plan)).instructions
    assert nodes == (Save(model="actor", placement=T2), Save(model="critic", placement=T2))


def test_what_is_offloaded_is_there_while_it_is_saved():
    """And away again afterwards; a model without training is left where it is."""
    graph, plan = _plan(actor_gen=D2)
    models = {"actor": ModelConfig(), "ref": ModelConfig(offload=True), "critic": ModelConfig(offload=True)}
    nodes = compile_save(graph, home_placements(graph, plan), models).instructions
    moves = [Offload(model="critic", placement=T2, back=back) for back in (True, False)]
    actor, critic = (Save(model=model, placement=T2) for model in ("actor", "critic"))
    assert nodes == (actor, moves[0], critic, moves[1])


def test_recovery_has_every_model_that_changes_and_what_calls_remember():
    """Those that are trained, and one that others are blended into, but no other; and each call's memory,
    those of one placement together."""
    graph, plan = _plan(actor_gen=D2)
    homes = home_placements(graph, plan)
    at_home = ("reward", "critic_inf", "actor_train", "critic_train")
    memories = (
        Snapshot(model="", placement=D2, calls=("actor_gen",)),
        Snapshot(model="", placement=T2, calls=at_home),
    )
    actor, critic = (Snapshot(model=model, placement=T2) for model in ("actor", "critic"))
    assert compile_recovery(graph, plan, homes).ahead == (actor, critic, *memories)
    homes["ref"] = D2
    ref_inf = ModelFunctionCall("ref_inf", "ref", CallKind.INFERENCE, ("input_ids",), ("ref_logprobs",))
    blends = (Blend("actor", "ref", 0.5),)
    followed = DataflowGraph(*graph.calls.values(), ref_inf, per_sample=graph.per_sample, blends=blends)
    plan = ExecutionPlan({**plan.placements, "ref_inf": D2})
    offloaded = {model: ModelConfig(offload=model == "ref") for model in followed.models}
    found = compile_recovery(followed, plan, homes, offloaded)
    moves = [Offload(model="ref", placement=D2, back=back) for back in (True, False)]
    assert found.ahead[2:5] == (moves[0], Snapshot(model="ref", placement=D2), moves[1])
    assert [(flush.name, flush.placement) for flush in found.rest] == [
        ("actor", T2),
        ("critic", T2),
        ("ref", D2),
        ("call-actor_gen", D2),
        ("call-reward", T2),
    ]
