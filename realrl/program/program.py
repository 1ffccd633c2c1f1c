"""One pass over a dataflow graph, compiled to instructions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from realrl.api.config import ModelConfig
from realrl.api.graph import CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan, Placement
from realrl.program.instructions import (
    AnyInstruction,
    Flush,
    Forget,
    Move,
    Offload,
    Reallocate,
    Release,
    RunCall,
    Save,
    Snapshot,
    union,
)
from realrl.program.resources import Weights


@dataclass(frozen=True)
class Program:
    """The instructions of one pass, in an order in which they could run one by one."""

    rest: tuple[AnyInstruction, ...]
    ahead: tuple[AnyInstruction, ...] = ()
    """The first ones, which may come before the rest of earlier passes."""
    is_overtaken: bool = False
    """Whether what the next step does ahead comes before it: an evaluation on ranks that only generate."""

    @property
    def instructions(self) -> tuple[AnyInstruction, ...]:
        """All of them, in order."""
        return self.ahead + self.rest


class Asynchrony(NamedTuple):
    """How generation overlaps with the training of earlier passes: see `RunCall`."""

    preemptible: bool = False
    interruptible: bool = False
    overtakes: bool = False
    """Whether generation, ahead of all else of its step, overtakes the evaluations before the step."""


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
    """One pass over `graph`; generation that training preempts, or that overtakes, is ahead of all else.

    A model away from its home, or in another engine than ours, is reallocated before its call, and released
    after the last unless its replicas are kept. An offloaded model is on its devices from its first use to
    its last, in what is ahead and in the rest.
    """
    models = models or {}
    is_split = asynchrony.preemptible or asynchrony.overtakes
    names_ahead = _ahead(graph) if is_split else set()
    kept = {name for name, model in models.items() if model.keep_replicas}

    def instructions_of(names: Collection[str]) -> list[AnyInstruction]:
        return _CallInstructions(graph, _in_turn(graph, names), plan, homes, kept, asynchrony).all()

    # What is ahead leaves no replica to the rest: other passes may come between them.
    ahead = instructions_of(names_ahead)
    rest = instructions_of(graph.calls.keys() - names_ahead)
    rest += _blends(graph, homes)
    ahead = _on_devices(ahead, homes, models)
    rest = _on_devices(rest, homes, models)
    ranks = union(*(plan[name] for name in graph.calls))
    forget = Forget(calls=tuple(graph.calls), ranks=ranks)
    return Program((*rest, forget), tuple(ahead))


def _blends(graph: DataflowGraph, homes: Mapping[str, Placement]) -> list[Reallocate]:
    """Return a reallocation for each blend of the graph."""
    found = []
    for blend in graph.blends:
        source, target = homes[blend.source], homes[blend.target]
        found.append(
            Reallocate(model=blend.source, source=source, target=target, into=blend.target, eta=blend.eta)
        )
    return found


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


class _CallInstructions:
    """The instructions of some calls in turn. Meanwhile, it knows which replicas have the newest weights."""

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

    def all(self) -> list[AnyInstruction]:
        """Return those of every call, in an order in which they could run one by one."""
        instructions: list[AnyInstruction] = []
        for index, call in enumerate(self._calls):
            instructions += self._of_call(index, call)
        return instructions

    def _of_call(self, index: int, call: ModelFunctionCall) -> Iterator[AnyInstruction]:
        replica = self._replica(call)
        if replica and replica not in self._up_to_date:
            yield _reallocate(call.name, replica, self._homes[replica.model])
            self._up_to_date.add(replica)
        yield from _move(self._graph, call, self._plan)
        run = self._run(index, call)
        yield run
        is_kept = call.model in self._kept or run.interruptible
        if replica and self._last_use[replica] == index and not is_kept:
            model, placement, engine = replica
            yield Release(call=call.name, model=model, placement=placement, engine=engine)
        if call.kind is CallKind.TRAIN:
            # Training changes the weights at home, so every replica of them is out of date.
            self._up_to_date = {weights for weights in self._up_to_date if weights.model != call.model}

    def _run(self, index: int, call: ModelFunctionCall) -> RunCall:
        asynchrony = self._asynchrony if call.kind is CallKind.GENERATE else SYNCHRONOUS
        judge = self._graph.redraw.judge if self._graph.redraw else ""
        is_repeated_later = call in self._calls[index + 1 :]
        is_repetition = call in self._calls[:index]
        return RunCall(
            function=call,
            placement=self._plan[call.name],
            preemptible=asynchrony.preemptible,
            interruptible=asynchrony.interruptible,
            remembers=self._graph.trains,
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
    return Reallocate(call=call, model=model, source=home, target=placement, into=model, engine=engine)


def _on_devices(
    instructions: Sequence[AnyInstruction], homes: Mapping[str, Placement], models: Mapping[str, ModelConfig]
) -> list[AnyInstruction]:
    """Have what is offloaded on its devices while it is used."""
    for name, config in models.items():
        if config.offload and name in homes:
            instructions = _while_used(instructions, Weights(name, homes[name]))
    return list(instructions)


def _while_used(instructions: Sequence[AnyInstruction], weights: Weights) -> list[AnyInstruction]:
    """Have a model's own weights on their devices from the first instruction that uses them to the last."""
    used = []
    for index, instruction in enumerate(instructions):
        if weights in (*instruction.reads, *instruction.writes):
            used.append(index)
    if not used:
        return list(instructions)
    first = used[0]
    last = used[-1] + 1
    return [
        *instructions[:first],
        Offload(model=weights.model, placement=weights.placement, back=True),
        *instructions[first:last],
        Offload(model=weights.model, placement=weights.placement, back=False),
        *instructions[last:],
    ]


def compile_save(
    graph: DataflowGraph, homes: Mapping[str, Placement], models: Mapping[str, ModelConfig] | None = None
) -> Program:
    """Return a program that writes every model that `graph` trains."""
    saves = [Save(model=model, placement=homes[model]) for model in graph.trained]
    return Program(tuple(_on_devices(saves, homes, models or {})))


def compile_recovery(
    graph: DataflowGraph,
    plan: ExecutionPlan,
    homes: Mapping[str, Placement],
    models: Mapping[str, ModelConfig] | None = None,
) -> Program:
    """Return a program that copies, ahead of later steps, all that resuming needs, and then waits for files.

    That is every model that `graph` changes, and what every call of it remembers.
    """
    if not graph.changed:
        return Program(())
    snapshots = [Snapshot(model=model, placement=homes[model]) for model in graph.changed]
    snapshots += _snapshots_of_calls(graph, plan)
    flushes = [
        Flush(model=snapshot.model, placement=snapshot.placement, calls=snapshot.calls)
        for snapshot in snapshots
    ]
    return Program(tuple(flushes), ahead=tuple(_on_devices(snapshots, homes, models or {})))


def _snapshots_of_calls(graph: DataflowGraph, plan: ExecutionPlan) -> list[Snapshot]:
    """Return a snapshot of memories for each placement of the graph's calls."""
    calls: dict[Placement, list[str]] = {}
    for name in graph.calls:
        calls.setdefault(plan[name], []).append(name)
    return [Snapshot(model="", placement=placement, calls=tuple(names)) for placement, names in calls.items()]


def _move(graph: DataflowGraph, call: ModelFunctionCall, plan: ExecutionPlan) -> list[Move]:
    """Return what brings a call the keys that other calls made; nothing where it needs none of them."""
    producers = graph.producers(call.name)
    if not producers:
        return []
    keys = tuple(key for key in call.inputs if key in graph.producer)
    return [Move(function=call, placement=plan[call.name], keys=keys, producers=tuple(producers))]
