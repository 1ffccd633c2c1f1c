"""One pass over a dataflow graph, compiled to nodes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from realrl.api.config import ModelConfig
from realrl.api.graph import CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, Placement
from realrl.program.instructions import (
    Call,
    Flush,
    Forget,
    Move,
    Node,
    Offload,
    Reallocate,
    Release,
    Save,
    Snapshot,
    Weights,
    union,
)


@dataclass(frozen=True)
class Program:
    """The nodes of one pass, in an order in which they could run one by one."""

    rest: tuple[Node, ...]
    ahead: tuple[Node, ...] = ()
    """The first ones, which may come before the rest of earlier passes."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.ahead + self.rest


class Asynchrony(NamedTuple):
    """How generation overlaps with the training of earlier passes: see `Call`."""

    steps_aside: bool = False
    interruptible: bool = False


SYNCHRONOUS = Asynchrony()


def home_placements(graph: DataflowGraph, plan: ExecutionPlan) -> dict[str, Placement]:
    """Where each model lives: with the call that trains it, else with the first that uses it.

    Raises:
        ValueError: a model is trained at two placements.
    """
    homes: dict[str, Placement] = {}
    by_training = sorted(graph.calls.values(), key=lambda call: call.kind is not CallKind.TRAIN)
    for call in (call for call in by_training if call.model):
        home = homes.setdefault(call.model, plan[call.name])
        if call.kind is CallKind.TRAIN and plan[call.name] != home:
            raise ValueError(
                f"allocation: {call.model} is trained on {home}, and by {call.name} on {plan[call.name]};"
                " give every call that trains it the same ranks and layout"
            )
    return homes


def compile_program(
    graph: DataflowGraph,
    plan: ExecutionPlan,
    homes: Mapping[str, Placement],
    models: Mapping[str, ModelConfig] | None = None,
    asynchrony: Asynchrony = SYNCHRONOUS,
) -> Program:
    """One pass over `graph`; where generation steps aside for training, it is ahead of all else.

    A model away from its home, or in another engine than ours, is reallocated before its call, and released
    after the last unless its replicas are kept. An offloaded model is on its devices from its first use to
    its last, in what is ahead and in the rest.
    """
    models = models or {}
    ahead = _ahead(graph) if asynchrony.steps_aside else set()
    kept = {name for name, model in models.items() if model.keep_replicas}
    # What is ahead leaves no replica to the rest: other passes may come between them.
    parts = [
        _call_nodes(graph, _in_turn(graph, names), plan, homes, kept, asynchrony)
        for names in (graph.calls.keys() - ahead, ahead)
    ]
    parts[0] += [
        Reallocate("", blend.source, homes[blend.source], homes[blend.target], blend.target, blend.eta)
        for blend in graph.blends
    ]
    rest, first = (_on_devices(part, homes, models) for part in parts)
    rest.append(Forget(tuple(graph.calls), union(*(plan[name] for name in graph.calls))))
    return Program(tuple(rest), tuple(first))


def _ahead(graph: DataflowGraph) -> set[str]:
    """Where anything trains: the calls that generate, and computations on what they make alone; of those that
    are made again for other rows, all or none.
    """
    ahead: set[str] = set()
    held = set() if all(map(_needs_no_training, graph.redrawn)) else {call.name for call in graph.redrawn}
    if graph.trains:
        for call in (call for call in graph.calls.values() if call.name not in held):
            if _needs_no_training(call) and graph.producers(call.name).keys() <= ahead:
                ahead.add(call.name)
    return ahead


def _needs_no_training(call: ModelFunctionCall) -> bool:
    return call.kind in (CallKind.GENERATE, CallKind.COMPUTE)


def _in_turn(graph: DataflowGraph, names: Collection[str]) -> list[ModelFunctionCall]:
    """The calls of these names; first those that are made again for other rows, as often as that may be."""
    calls = [call for call in graph.calls.values() if call.name in names]
    redrawn = [call for call in graph.redrawn if call.name in names]
    draws = graph.redraw.max_draws if redrawn else 0
    return redrawn * draws + [call for call in calls if call not in redrawn]


def _call_nodes(
    graph: DataflowGraph,
    calls: Sequence[ModelFunctionCall],
    plan: ExecutionPlan,
    homes: Mapping[str, Placement],
    kept: set[str],
    asynchrony: Asynchrony,
) -> list[Node]:
    nodes: list[Node] = []
    away: set[Weights] = set()
    used = {c.name: Weights(c.model, plan[c.name], c.engine) for c in calls if c.model}
    last_use = {used[call.name]: i for i, call in enumerate(calls) if call.name in used}
    for i, call in enumerate(calls):
        weights = used.get(call.name)
        is_away = weights is not None and weights != Weights(call.model, homes[call.model])
        if is_away and weights not in away:
            nodes.append(_reallocate(call.name, weights, homes[call.model]))
            away.add(weights)
        nodes += _move(graph, call, plan)
        node = Call(call, plan[call.name], **_asides(call, asynchrony), **_redraws(graph, calls, i))
        nodes.append(node)
        is_kept = call.model in kept or node.interruptible
        if is_away and last_use[weights] == i and not is_kept:
            nodes.append(Release(call.name, *weights))
        if call.kind is CallKind.TRAIN:
            away -= {replica for replica in away if replica.model == call.model}
    return nodes


def _asides(call: ModelFunctionCall, asynchrony: Asynchrony) -> dict[str, bool]:
    return asynchrony._asdict() if call.kind is CallKind.GENERATE else {}


def _redraws(graph: DataflowGraph, calls: Sequence[ModelFunctionCall], index: int) -> dict[str, tuple]:
    """What the call at `index` is to the calls that are made again for other rows, before it and after it."""
    call, judge = calls[index], graph.redraw and graph.redraw.judge
    judges = call.name == judge and call in calls[index + 1 :]
    is_again = call in calls[:index]
    return {"redraws": graph.redrawn if judges else (), "again": (judge,) if is_again else ()}


def _reallocate(call: str, weights: Weights, home: Placement) -> Reallocate:
    model, placement, engine = weights
    return Reallocate(call, model, home, placement, into=model, engine=engine)


def _on_devices(
    nodes: Sequence[Node], homes: Mapping[str, Placement], models: Mapping[str, ModelConfig]
) -> list[Node]:
    """Have what is offloaded on its devices while it is used."""
    for name in (name for name, config in models.items() if config.offload and name in homes):
        nodes = _while_used(nodes, Weights(name, homes[name]))
    return list(nodes)


def _while_used(nodes: Sequence[Node], weights: Weights) -> list[Node]:
    """Have a model's own weights on their devices from the first node that uses them to the last."""
    used = [i for i, node in enumerate(nodes) if weights in (*node.reads, *node.writes)]
    if not used:
        return list(nodes)
    first, last = used[0], used[-1] + 1
    return [
        *nodes[:first],
        Offload(weights.model, weights.placement, back=True),
        *nodes[first:last],
        Offload(weights.model, weights.placement, back=False),
        *nodes[last:],
    ]


def compile_save(
    graph: DataflowGraph, homes: Mapping[str, Placement], models: Mapping[str, ModelConfig] | None = None
) -> Program:
    """Write every model that `graph` trains."""
    trained = dict.fromkeys(c.model for c in graph.calls.values() if c.kind is CallKind.TRAIN)
    nodes = [Save(model, homes[model]) for model in trained]
    return Program(tuple(_on_devices(nodes, homes, models or {})))


def compile_recovery(
    graph: DataflowGraph, homes: Mapping[str, Placement], models: Mapping[str, ModelConfig] | None = None
) -> Program:
    """Take a snapshot of every model that `graph` changes, ahead of the steps that go on meanwhile."""
    nodes = [Snapshot(model, homes[model]) for model in graph.changed]
    flushes = tuple(Flush(model, homes[model]) for model in graph.changed)
    return Program(flushes, ahead=tuple(_on_devices(nodes, homes, models or {})))


def _move(graph: DataflowGraph, call: ModelFunctionCall, plan: ExecutionPlan) -> list[Move]:
    producers = graph.producers(call.name)
    if not producers:
        return []
    keys = tuple(key for key in call.inputs if key in graph.producer)
    return [Move(call, plan[call.name], keys, tuple(producers))]
