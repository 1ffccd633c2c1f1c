"""One pass over a dataflow graph, compiled to nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
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
    for call in by_training:
        if call.model is None:
            continue
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
        _CallNodes(graph, _in_turn(graph, names), plan, homes, kept, asynchrony).nodes()
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
    """Return the calls that may run before the training of earlier passes.

    These are the calls that generate, and computations on nothing but what those make. Of the calls that are
    repeated for resampled rows either all are ahead or none.
    """
    if not graph.trains:
        return set()
    held = set()
    if not all(map(_needs_no_training, graph.redrawn)):
        held = {call.name for call in graph.redrawn}
    ahead: set[str] = set()
    for call in graph.calls.values():
        is_fed_ahead = graph.producers(call.name).keys() <= ahead
        if call.name not in held and _needs_no_training(call) and is_fed_ahead:
            ahead.add(call.name)
    return ahead


def _needs_no_training(call: ModelFunctionCall) -> bool:
    # What runs beside a call that trains would hold up the training of earlier passes.
    return call.beside is None and call.kind in (CallKind.GENERATE, CallKind.COMPUTE)


def _in_turn(graph: DataflowGraph, names: Collection[str]) -> list[ModelFunctionCall]:
    """Return the calls of these names; those that resampled rows repeat come first, once for each draw."""
    redrawn = [call for call in graph.redrawn if call.name in names]
    draws = graph.redraw.max_draws if graph.redraw and redrawn else 0
    others = [call for call in graph.calls.values() if call.name in names and call not in redrawn]
    return redrawn * draws + others


class _CallNodes:
    """The nodes of some calls in turn, and which replicas have their model's newest weights meanwhile."""

    def __init__(
        self,
        graph: DataflowGraph,
        calls: Sequence[ModelFunctionCall],
        plan: ExecutionPlan,
        homes: Mapping[str, Placement],
        kept: Collection[str],
        asynchrony: Asynchrony,
    ) -> None:
        """`kept`: the models whose replicas are not released after their last use."""
        self._graph = graph
        self._calls = calls
        self._plan = plan
        self._homes = homes
        self._kept = kept
        self._asynchrony = asynchrony
        self._up_to_date: set[Weights] = set()
        self._last_use: dict[Weights, int] = {}
        for index, call in enumerate(calls):
            if weights := self._replica(call):
                self._last_use[weights] = index

    def nodes(self) -> list[Node]:
        """Return the nodes of every call, in an order in which they could run one by one."""
        nodes: list[Node] = []
        for index, call in enumerate(self._calls):
            nodes += self._nodes_of(index, call)
        return nodes

    def _nodes_of(self, index: int, call: ModelFunctionCall) -> Iterator[Node]:
        replica = self._replica(call)
        if replica and replica not in self._up_to_date:
            yield _reallocate(call.name, replica, self._homes[replica.model])
            self._up_to_date.add(replica)
        yield from _move(self._graph, call, self._plan)
        node = self._call_node(index, call)
        yield node
        is_kept = call.model in self._kept or node.interruptible
        if replica and self._last_use[replica] == index and not is_kept:
            yield Release(call.name, replica.model, replica.placement, replica.engine)
        if call.kind is CallKind.TRAIN:
            # Training changes the weights at home, so every replica of them is out of date.
            self._up_to_date = {weights for weights in self._up_to_date if weights.model != call.model}

    def _call_node(self, index: int, call: ModelFunctionCall) -> Call:
        asynchrony = self._asynchrony if call.kind is CallKind.GENERATE else SYNCHRONOUS
        judge = self._graph.redraw.judge if self._graph.redraw else ""
        is_repeated_later = call in self._calls[index + 1 :]
        is_repetition = call in self._calls[:index]
        return Call(
            call,
            self._plan[call.name],
            steps_aside=asynchrony.steps_aside,
            interruptible=asynchrony.interruptible,
            redraws=self._graph.redrawn if call.name == judge and is_repeated_later else (),
            again=(judge,) if is_repetition else (),
        )

    def _replica(self, call: ModelFunctionCall) -> Weights | None:
        """Return the weights that a call uses away from its model's home, or None if it needs no replica."""
        if call.model is None:
            return None
        weights = Weights(call.model, self._plan[call.name], call.engine)
        return None if weights == Weights(call.model, self._homes[call.model]) else weights


def _reallocate(call: str, weights: Weights, home: Placement) -> Reallocate:
    model, placement, engine = weights
    return Reallocate(call, model, home, placement, into=model, engine=engine)


def _on_devices(
    nodes: Sequence[Node], homes: Mapping[str, Placement], models: Mapping[str, ModelConfig]
) -> list[Node]:
    """Have what is offloaded on its devices while it is used."""
    for name, config in models.items():
        if config.offload and name in homes:
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
    nodes = [Save(model, homes[model]) for model in graph.trained]
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
