"""A worker: one rank, which receives instructions, carries them out one by one, and reports."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample
from realrl.api.config import RunConfig
from realrl.api.device_metrics import read
from realrl.api.engine import NO_BREAKS, Breaks, CallEngine, Engine
from realrl.api.graph import CallKind, DataflowGraph, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan
from realrl.api.messages import Done, Failed, StepAside, Stop, Underway
from realrl.api.metrics import Mean, Peak
from realrl.api.recipe import CallContext, CallOutput, Recipe
from realrl.base.progress import Progress
from realrl.engines.refusal import NoEngine
from realrl.parallel.groups import Groups
from realrl.program.instructions import (
    AnyInstruction,
    Flush,
    Forget,
    Instruction,
    Move,
    Offload,
    Reallocate,
    Release,
    RunCall,
    Save,
    Snapshot,
)
from realrl.program.resources import Weights
from realrl.runtime.control.channel import WorkerChannel
from realrl.runtime.control.wire import ToWorker
from realrl.runtime.run_data import RunData
from realrl.runtime.worker.call_memories import CallMemories, Memory
from realrl.runtime.worker.replicas import Replicas, check_version
from realrl.runtime.worker.sample_store import SampleStore, batch_of
from realrl.runtime.worker.snapshots import Snapshots

logger = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One rank's part of a run."""

    rank: int
    recipe: Recipe
    config: RunConfig
    plan: ExecutionPlan
    channel: WorkerChannel
    groups: Mapping[Any, Groups]
    replicas: Replicas
    data: RunData
    store: SampleStore
    memories: CallMemories = field(default_factory=CallMemories)
    snapshots: Snapshots = field(default_factory=Snapshots)

    def serve(self) -> None:
        """Receive, carry out, report, until told to stop."""
        while not isinstance(instruction := self.channel.receive(), Stop):
            # A sign to step aside that comes here was for a call that has ended.
            if not isinstance(instruction, StepAside):
                self._carry_out_and_report(instruction)

    def _carry_out_and_report(self, message: ToWorker) -> None:
        assert isinstance(message, Instruction), f"the set-up is over, and {message} is no instruction"
        self.channel.send(self._report(message))

    def _report(self, instruction: AnyInstruction) -> Done | Failed:
        started_s = time.time()
        try:
            result = self._carry_out(instruction)
        except Exception as error:  # the master ends the run
            logger.exception("failed in %s", instruction)
            return Failed(seq=instruction.seq, error=one_line(error), traceback=traceback.format_exc())
        return Done(seq=instruction.seq, started_s=started_s, ended_s=time.time(), **result)

    def _carry_out(self, instruction: AnyInstruction) -> dict[str, Any]:
        """Do what is asked; returns what `Done` says of it."""
        logger.debug("seq %d: %s", instruction.seq, instruction)
        return HANDLERS[type(instruction)](self, instruction) or {}

    def _begin_snapshot(self, instruction: Snapshot) -> None:
        """Copy this rank's part of a model, and memories, which are alike on all ranks and written by one."""
        model, placement = instruction.model, instruction.placement
        state = self.replicas.at_home(model).state() if model else None
        memories = {}
        if self.rank == placement.ranks[0]:
            for call in instruction.calls:
                memories[call] = self.memories.after(call, instruction.step)
        directory = Path(instruction.directory) / instruction.name
        self.snapshots.begin(instruction.job, directory, state, memories)

    def _end_snapshot(self, instruction: Flush) -> dict[str, Any]:
        return {"files": self.snapshots.end(instruction.job, instruction.name)}

    def _forget(self, instruction: Forget) -> None:
        self.store.forget(instruction.job)
        if not instruction.evaluating:
            self.memories.drop_before(instruction.step)

    def _run_call(self, instruction: RunCall) -> dict[str, Any]:
        graph = self._graph(instruction.evaluating)
        call, placement = graph.calls[instruction.call], self.plan[instruction.call]
        engine: Engine | None = None
        if call.model is not None:
            weights = Weights(call.model, placement, call.engine)
            engine = self.replicas.engine(weights)
            check_version(engine, instruction.version, call.model)
            self.replicas.end_decodings(weights if call.kind is CallKind.GENERATE else None)

        context = self._context(instruction, engine or NoEngine(call.name))
        inputs = self._inputs(instruction, graph, call)
        with engine.reporting(context.progress) if engine else nullcontext():
            output = self.recipe.bodies[call.name](context, inputs)
        if call.kind is CallKind.TRAIN:
            assert engine is not None, "a call that trains has a model"
            engine.version = instruction.step + 1
        return self._describe(instruction, call, output)

    def _graph(self, evaluating: bool) -> DataflowGraph:
        return (self.recipe.eval_graph if evaluating else self.recipe.graph)(self.config)

    def _context(self, instruction: RunCall, engine: CallEngine) -> CallContext:
        groups = self.groups[self.plan[instruction.call]]
        return CallContext(
            config=self.config,
            step=instruction.step,
            evaluating=instruction.evaluating,
            engine=engine,
            dataset=self._rows(instruction.evaluating),
            tokenizer=self.data.tokenizer,
            reduce=groups.reduce,
            reduce_mesh=groups.reduce_mesh,
            memory=self._memory(instruction),
            progress=self._progress(instruction),
            breaks=self._breaks(instruction) if instruction.steps_aside else NO_BREAKS,
        )

    def _memory(self, instruction: RunCall) -> Memory:
        """Return what the call remembers of earlier steps of training; an evaluation remembers nothing."""
        if instruction.evaluating:
            return {}
        return self.memories.for_step(instruction.call, instruction.step)

    def _progress(self, instruction: RunCall) -> Progress:
        """Tells the master now and then, on one rank for each data-parallel share."""
        placement = self.plan[instruction.call]
        speaks = self.rank == placement.output_ranks(placement.coordinate(self.rank).dp_rank)[0]
        last_s, steps = time.monotonic(), 0

        def say(done: int, total: int) -> None:
            nonlocal last_s, steps
            steps += 1
            if speaks and time.monotonic() - last_s >= _PROGRESS_EVERY_S:
                last_s = time.monotonic()
                self.channel.send(Underway(seq=instruction.seq, done=done, total=total, steps=steps))

        return say

    def _breaks(self, instruction: RunCall) -> Breaks:
        """For what was sent to this rank after a call that steps aside."""

        def is_the_sign(message: ToWorker) -> bool:
            return isinstance(message, StepAside) and message.seq == instruction.seq

        def take() -> None:
            while not is_the_sign(message := self.channel.receive()):
                self._carry_out_and_report(message)

        return Breaks(due=lambda: any(map(is_the_sign, self.channel.arrived())), take=take)

    def _rows(self, evaluating: bool):
        return self.data.held_out if evaluating else self.data.rows

    def _inputs(self, instruction: RunCall, graph: DataflowGraph, call: ModelFunctionCall) -> PackedBatch:
        """This rank's share of the call's inputs, the dataset's keys and those that other calls made."""
        dp_rank = self.plan[call.name].coordinate(self.rank).dp_rank
        samples = [Sample(*pair) for pair in instruction.shares[dp_rank]]
        columns = {key: self._column(instruction, graph, key, samples) for key in call.inputs}
        dtypes = {key: self._dtype(instruction, key) for key in call.inputs}
        return batch_of(samples, columns, graph.per_sample, dtypes)

    def _column(
        self, instruction: RunCall, graph: DataflowGraph, key: str, samples: list[Sample]
    ) -> list[Tensor]:
        if key in graph.producer:
            return [self.store.get(instruction.job, key, sample.id) for sample in samples]
        rows = self._rows(instruction.evaluating)
        return [rows.tensors(sample.row)[key] for sample in samples]

    def _dtype(self, instruction: RunCall, key: str) -> torch.dtype:
        if key in instruction.dtypes:
            return getattr(torch, instruction.dtypes[key])
        return self._rows(instruction.evaluating).tensors(0)[key].dtype

    def _describe(self, instruction: RunCall, call: ModelFunctionCall, output: CallOutput) -> dict[str, Any]:
        """Keep the outputs, and say what the master needs to know of them."""
        placement = self.plan[call.name]
        dp_rank = placement.coordinate(self.rank).dp_rank
        # Without a model, every rank of a share computes the outputs.
        holders = placement.dp_slice(dp_rank) if call.model is None else placement.output_ranks(dp_rank)
        metrics = read(output.metrics)
        said: dict[str, Any] = {
            "metrics": {name: tuple(m) for name, m in metrics.items() if isinstance(m, Mean)},
            "peaks": {name: m.largest for name, m in metrics.items() if isinstance(m, Peak)},
        }
        if self.rank == holders[0]:
            said |= {"records": output.records, "rejected": output.rejected}
        if self.rank in holders and call.outputs:
            assert output.batch is not None, (
                f"{call.name} gave no outputs on rank {self.rank}, which holds them"
            )
            self.store.put(instruction.job, output.batch, call.outputs)
            said |= _outputs(output.batch, call.outputs)
        return said


HANDLERS: Mapping[type[Instruction], Callable[[Worker, Any], dict[str, Any] | None]] = {
    RunCall: Worker._run_call,
    Move: lambda worker, instruction: worker.store.move(instruction),
    Reallocate: lambda worker, instruction: worker.replicas.reallocate(instruction),
    Release: lambda worker, instruction: worker.replicas.release(instruction),
    Offload: lambda worker, instruction: worker.replicas.offload(instruction),
    Save: lambda worker, instruction: worker.replicas.save(instruction),
    Snapshot: Worker._begin_snapshot,
    Flush: Worker._end_snapshot,
    Forget: Worker._forget,
}
"""What a worker does at each kind of instruction; returns what `Done` says of it."""


def one_line(error: Exception) -> str:
    """An error's type, and the first line of what it says."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"


def _outputs(batch: PackedBatch, keys: tuple[str, ...]) -> dict[str, Any]:
    return {
        "samples": tuple(sample.id for sample in batch.samples),
        "lengths": {key: tuple(len(tensor) for tensor in batch.unpacked(key)) for key in keys},
        "dtypes": {key: str(batch[key].dtype).removeprefix("torch.") for key in keys},
    }
