"""Compiling a graph."""

from dataclasses import replace

import pytest

from realrl.api.config import ModelConfig
from realrl.api.graph import Blend, CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.program.instructions import Call, Flush, Offload, Reallocate, Release, Save, Snapshot
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
    return compile_program(graph, plan, home_placements(graph, plan)).nodes


def _names(nodes):
    return [f"{type(n).__name__} {n.call}" for n in nodes if isinstance(n, (Call, Reallocate, Release))]


def test_a_model_lives_where_it_is_trained():
    """Even though generation comes first."""
    graph, plan = _plan(actor_gen=D2)
    assert home_placements(graph, plan)["actor"] == T2


def test_an_away_call_stands_between_reallocation_and_release():
    """And only that call has them."""
    names = _names(_compiled(*_plan(actor_gen=D2)))
    assert names[:3] == ["Reallocate actor_gen", "Call actor_gen", "Release actor_gen"]
    assert sum(name.startswith("Re") for name in names) == 2


def test_at_home_nothing_is_reallocated():
    """One layout for all calls moves no weights."""
    assert all(name.startswith("Call") for name in _names(_compiled(*_plan())))


def test_another_engine_gets_weights_even_at_home():
    """And only its call has them."""
    graph, plan = _plan()
    calls = {
        name: replace(c, engine="other") if name == "actor_gen" else c for name, c in graph.calls.items()
    }
    nodes = _compiled(DataflowGraph(*calls.values(), per_sample=("rewards",)), plan)
    assert _names(nodes)[:3] == ["Reallocate actor_gen", "Call actor_gen", "Release actor_gen"]
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
    assert kept == ["Reallocate one", "Call one", "Call two", "Call three", "Release three", "Call four"]
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
    nodes = compile_save(graph, home_placements(graph, plan)).nodes
    assert nodes == (Save("actor", T2), Save("critic", T2))


def test_what_is_offloaded_is_there_while_it_is_saved():
    """And away again afterwards; a model without training is left where it is."""
    graph, plan = _plan(actor_gen=D2)
    models = {"actor": ModelConfig(), "ref": ModelConfig(offload=True), "critic": ModelConfig(offload=True)}
    nodes = compile_save(graph, home_placements(graph, plan), models).nodes
    moves = [Offload("critic", T2, back=back) for back in (True, False)]
    assert nodes == (Save("actor", T2), moves[0], Save("critic", T2), moves[1])


def test_recovery_has_every_model_that_changes():
    """Those that are trained, and one that others are blended into, but no other; waiting for what is written
    needs no weights."""
    graph, plan = _plan(actor_gen=D2)
    homes = home_placements(graph, plan)
    assert compile_recovery(graph, homes).ahead == (Snapshot("actor", T2), Snapshot("critic", T2))
    homes["ref"] = D2
    ref_inf = ModelFunctionCall("ref_inf", "ref", CallKind.INFERENCE, ("input_ids",), ("ref_logprobs",))
    blends = (Blend("actor", "ref", 0.5),)
    followed = DataflowGraph(*graph.calls.values(), ref_inf, per_sample=graph.per_sample, blends=blends)
    offloaded = {model: ModelConfig(offload=model == "ref") for model in followed.models}
    found = compile_recovery(followed, homes, offloaded)
    moves = [Offload("ref", D2, back=back) for back in (True, False)]
    assert found.ahead[2:] == (moves[0], Snapshot("ref", D2), moves[1])
    assert found.rest == (Flush("actor", T2), Flush("critic", T2), Flush("ref", D2))
