"""One pass over a dataflow graph, compiled to nodes that say what they read and write.

A node waits for the last writer of what it reads, and for the readers of what it overwrites. That one
rule orders the nodes of a step by its keys, and steps among each other by the weights of the models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from realrl.api.config import ModelConfig
from realrl.api.graph import OWN_ENGINE, CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, Placement


class Weights(NamedTuple):
    """A model's weights at a placement, in an engine there; shared by all passes."""

    model: str
    placement: Placement
    engine: str = OWN_ENGINE


class Inputs(NamedTuple):
    """A call's inputs, on the ranks where it runs."""

    call: str


class Outputs(NamedTuple):
    """A call's outputs, on the ranks that made them."""

    call: str


class Turn(NamedTuple):
    """A rank's turn to generate: calls that step aside for other work do not for each other."""

    rank: int


Resource = Weights | Inputs | Outputs | Turn


class _Placed:
    """A node that runs on the ranks of its placement, with its model's weights there."""

    engine = OWN_ENGINE

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.placement.ranks

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (Weights(self.model, self.placement, self.engine),) if self.model else ()


@dataclass(frozen=True)
class Reallocate:
    """Bring `model` from its home to where `call` runs; or blend it into another by the share `eta`."""

    call: str
    model: str
    source: Placement
    target: Placement
    into: str
    """The model whose weights are written: `model` itself, but for a blend."""
    eta: float = 1.0
    engine: str = OWN_ENGINE
    """The engine that gets the weights."""

    @property
    def ranks(self) -> tuple[int, ...]:
        return _union(self.source, self.target)

    @property
    def reads(self) -> tuple[Resource, ...]:
        return (Weights(self.model, self.source),)

    @property
    def writes(self) -> tuple[Resource, ...]:
        return (Weights(self.into, self.target, self.engine),)


@dataclass(frozen=True)
class Release(_Placed):
    """Drop the replica of `model` that `call` was the last to use."""

    call: str
    model: str
    placement: Placement
    engine: str = OWN_ENGINE
    reads: tuple[Resource, ...] = ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        return self.weights


@dataclass(frozen=True)
class Offload(_Placed):
    """Keep the weights of `model` in host memory from now on, or bring them `back` to the device."""

    model: str
    placement: Placement
    back: bool
    call: str = ""
    reads: tuple[Resource, ...] = ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        return self.weights


@dataclass(frozen=True)
class Move:
    """Bring to `function` the keys that other calls made."""

    function: ModelFunctionCall
    placement: Placement
    keys: tuple[str, ...]
    producers: tuple[str, ...]

    @property
    def call(self) -> str:
        return self.function.name

    @property
    def reads(self) -> tuple[Resource, ...]:
        return tuple(map(Outputs, self.producers))

    @property
    def writes(self) -> tuple[Resource, ...]:
        return (Inputs(self.call),)


@dataclass(frozen=True)
class Call(_Placed):
    """Run `function` on `placement`."""

    function: ModelFunctionCall
    placement: Placement
    steps_aside: bool = False
    """It generates, and lets what else its ranks are to do go first, between two tokens."""
    interruptible: bool = False
    """New weights of its model, too."""
    redraws: tuple[ModelFunctionCall, ...] = ()
    """The calls that are made again after it, for other rows in place of those that it rejects."""
    again: tuple[str, ...] = ()
    """The call, if any, whose rejections it is made again for."""

    @property
    def call(self) -> str:
        return self.function.name

    @property
    def model(self) -> str | None:
        return self.function.model

    @property
    def engine(self) -> str:
        return self.function.engine

    @property
    def trains(self) -> bool:
        return self.function.kind is CallKind.TRAIN

    @property
    def reads(self) -> tuple[Resource, ...]:
        return (Inputs(self.call), *map(Outputs, self.again), *self.weights)

    @property
    def writes(self) -> tuple[Resource, ...]:
        turns = map(Turn, self.ranks if self.steps_aside else ())
        return (Outputs(self.call), *turns, *(self.weights if self.trains else ()))


@dataclass(frozen=True)
class Forget:
    """Drop the pass's samples everywhere."""

    calls: tuple[str, ...]
    ranks: tuple[int, ...]
    call: str = ""
    reads: tuple[Resource, ...] = ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        return (*map(Inputs, self.calls), *map(Outputs, self.calls))


@dataclass(frozen=True)
class Save(_Placed):
    """Write a checkpoint of `model`."""

    model: str
    placement: Placement
    call: str = ""
    writes: tuple[Resource, ...] = ()

    @property
    def reads(self) -> tuple[Resource, ...]:
        return self.weights


@dataclass(frozen=True)
class Snapshot(_Placed):
    """Copy all that `model` needs to be gone on with, and begin to write it."""

    model: str
    placement: Placement
    call: str = ""
    writes: tuple[Resource, ...] = ()

    @property
    def reads(self) -> tuple[Resource, ...]:
        return self.weights


@dataclass(frozen=True)
class Flush(_Placed):
    """Wait until the snapshot of `model` is written, once it is trained on."""

    model: str
    placement: Placement
    call: str = ""
    writes: tuple[Resource, ...] = ()

    @property
    def reads(self) -> tuple[Resource, ...]:
        return self.weights


Node = Reallocate | Release | Offload | Move | Call | Forget | Save | Snapshot | Flush


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
    for model in (name for name, config in models.items() if config.offload and name in graph.models):
        parts = [_while_used(part, Weights(model, homes[model])) for part in parts]
    rest, first = parts
    rest.append(Forget(tuple(graph.calls), _union(*(plan[name] for name in graph.calls))))
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
    nodes: list[Node] = [Save(model, homes[model]) for model in trained]
    for model in (name for name, config in (models or {}).items() if config.offload and name in trained):
        nodes = _while_used(nodes, Weights(model, homes[model]))
    return Program(tuple(nodes))


def compile_recovery(
    graph: DataflowGraph, homes: Mapping[str, Placement], models: Mapping[str, ModelConfig] | None = None
) -> Program:
    """Take a snapshot of every model that `graph` changes, ahead of the steps that go on meanwhile."""
    nodes: list[Node] = [Snapshot(model, homes[model]) for model in graph.changed]
    for model in (name for name, config in (models or {}).items() if config.offload):
        nodes = _while_used(nodes, Weights(model, homes[model]))
    return Program(tuple(Flush(model, homes[model]) for model in graph.changed), ahead=tuple(nodes))


def _move(graph: DataflowGraph, call: ModelFunctionCall, plan: ExecutionPlan) -> list[Move]:
    producers = graph.producers(call.name)
    if not producers:
        return []
    keys = tuple(key for key in call.inputs if key in graph.producer)
    return [Move(call, plan[call.name], keys, tuple(producers))]


def _union(*placements: Placement) -> tuple[int, ...]:
    return tuple(sorted({rank for placement in placements for rank in placement.ranks}))
