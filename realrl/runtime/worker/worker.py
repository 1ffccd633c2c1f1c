"""A worker: one rank, which receives instructions, carries them out one by one, and reports.

receive ── instruction ──▶ HANDLERS[its class] ──▶ Done, or Failed ── send ──▶ master
"""

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

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import RunConfig
from realrl.api.device_metrics import read
from realrl.api.engine import NO_PREEMPTION, Engine, Preemption
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan
from realrl.api.messages import Done, Failed, Preempt, Stop, Underway
from realrl.api.metrics import Peak
from realrl.api.recipe import CallContext, CallOutput, Dataset, Recipe
from realrl.base.progress import Progress
from realrl.engines.refusal import NoEngine
from realrl.parallel.groups import Groups
from realrl.program.instructions import (
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
from realrl.runtime.control.wire import ToWorker
from realrl.runtime.control.worker_channel import WorkerChannel
from realrl.runtime.run_data import RunData
from realrl.runtime.worker.call_memories import CallMemories, Memory
from realrl.runtime.worker.replicas import Replicas, check_version
from realrl.runtime.worker.sample_store import SampleStore
from realrl.runtime.worker.snapshots import Snapshots

logger = logging.getLogger(__name__)

_PROGRESS_EVERY_S = 0.5


def is_stop(message: ToWorker) -> bool:
    """Whether a message says that the run is over."""
    return isinstance(message, Stop)


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

    def serve(self, is_end: Callable[[ToWorker], bool] = is_stop) -> None:
        """Receive instructions, carry out each and report, up to the message that is the end."""
        while not is_end(message := self.channel.receive()):
            if isinstance(message, Preempt):
                continue  # It was for a call that has ended.
            assert isinstance(message, Instruction), f"a worker at work was sent {type(message).__name__}"

            logger.debug("seq %d: %s", message.seq, message)
            handler = HANDLERS[type(message)]
            report: Done | Failed
            started_s = time.time()
            try:
                result = handler(self, message) or {}
            except Exception as error:  # the master ends the run
                logger.exception("failed in %s", message)
                report = Failed(seq=message.seq, error=one_line(error), traceback=traceback.format_exc())
            else:
                report = Done(seq=message.seq, started_s=started_s, ended_s=time.time(), **result)
            self.channel.send(report)

    def _begin_snapshot(self, instruction: Snapshot) -> None:
        """Begin to write this rank's part of a model, and memories, which are the same on all ranks."""
        memories: dict[str, Memory] = {}
        first_rank, *_ = instruction.ranks
        if self.rank == first_rank:
            for call in instruction.calls:
                memories[call] = self.memories.after(call, instruction.step)

        model = instruction.model
        state = self.replicas.at_home(model).state() if model else None
        directory = Path(instruction.directory) / instruction.name
        self.snapshots.begin(instruction.job, directory, state, memories)

    def _end_snapshot(self, instruction: Flush) -> dict[str, Any]:
        """Wait until a snapshot is written."""
        files = self.snapshots.end(instruction.job, instruction.name)
        return {"files": files}

    def _forget(self, instruction: Forget) -> None:
        """Drop a job's samples, and memories that no recovery point can ask for."""
        self.store.forget(instruction.job)
        if not instruction.evaluating:
            self.memories.drop_before(instruction.step)

    def _run_call(self, instruction: RunCall) -> dict[str, Any]:
        """Run the body of a call, and keep its outputs; return what `Done` says of them."""
        call = instruction.function
        engine = self._engine(call, instruction.version)
        groups = self.groups[self.plan[call.name]]
        inputs = self._inputs(instruction)
        context = CallContext(
            config=self.config,
            step=instruction.step,
            eval_set=instruction.eval_set,
            engine=engine or NoEngine(call.name),
            dataset=self._rows(instruction.eval_set),
            tokenizer=self.data.tokenizer,
            reduce=groups.reduce,
            reduce_mesh=groups.reduce_mesh,
            memory=self._memory(instruction),
            progress=self._progress(instruction),
            preemption=self._preemption(instruction) if instruction.preemptible else NO_PREEMPTION,
        )
        body = self.recipe.bodies[call.name]
        with engine.reporting(context.progress) if engine else nullcontext():
            output = body(context, inputs)
        if call.kind is CallKind.TRAIN:
            assert engine is not None, f"{call.name} trains, but has no model"
            engine.version = instruction.step + 1

        result = _metrics(output)
        holders = self._output_ranks(call)
        if self.rank == holders[0]:
            result |= {"records": output.records, "rejected": output.rejected}
        if self.rank in holders and call.outputs:
            batch = output.batch
            assert batch is not None, f"{call.name} gave no outputs on rank {self.rank}, which holds them"
            self.store.put(instruction.job, batch, call.outputs)
            result |= _outputs(batch, call.outputs)
        return result

    def _engine(self, call: ModelFunctionCall, version: int) -> Engine | None:
        """Return the engine of the call's model, made ready for the call; None where it has no model.

        Raises:
            RuntimeError: the engine has other weights than those of `version`.
        """
        if call.model is None:
            return None
        weights = Weights(call.model, self.plan[call.name], call.engine)
        engine = self.replicas.engine(weights)
        check_version(engine, version, call.model)
        # Memory that generation holds between calls goes to this call, unless it is what it needs.
        self.replicas.end_decodings(weights if call.kind is CallKind.GENERATE else None)
        return engine

    def _memory(self, instruction: RunCall) -> Memory:
        """Return what the call remembers of earlier steps of training; an evaluation remembers nothing."""
        if instruction.evaluating:
            return {}
        return self.memories.for_step(instruction.call, instruction.step)

    def _progress(self, instruction: RunCall) -> Progress:
        """Return what tells the master of progress now and then, on one rank per data-parallel share."""
        first_holder, *_ = self._output_ranks(instruction.function)
        reports = self.rank == first_holder
        last_s = time.monotonic()
        steps = 0

        def report(done: int, total: int) -> None:
            nonlocal last_s, steps
            steps += 1
            if reports and time.monotonic() - last_s >= _PROGRESS_EVERY_S:
                last_s = time.monotonic()
                self.channel.send(Underway(seq=instruction.seq, done=done, total=total, steps=steps))

        return report

    def _output_ranks(self, call: ModelFunctionCall) -> tuple[int, ...]:
        """Return the ranks that hold the outputs of this rank's data-parallel share of a call."""
        placement = self.plan[call.name]
        dp_rank = placement.coordinate(self.rank).dp_rank
        # Without a model, every rank of a share computes the outputs.
        if call.model is None:
            return placement.dp_slice(dp_rank)
        return placement.output_ranks(dp_rank)

    def _preemption(self, instruction: RunCall) -> Preemption:
        """Return the preemption of a call that is preempted by work which was sent to this rank after it."""

        def is_sign(message: ToWorker) -> bool:
            """Whether a message says that the call is to be preempted by what came before the message."""
            return isinstance(message, Preempt) and message.seq == instruction.seq

        def is_due() -> bool:
            """Whether the call is to be preempted."""
            return any(map(is_sign, self.channel.arrived()))

        def take() -> None:
            """Carry out what came before the sign."""
            self.serve(is_sign)

        return Preemption(pending=is_due, run=take)

    def _rows(self, eval_set: str) -> Dataset:
        """Return the rows that a training reads, or an evaluation on a set."""
        if not eval_set:
            return self.data.rows
        found = self.data.eval_sets
        assert eval_set in found, f"an evaluation on {eval_set} came, and there are no such rows"
        return found[eval_set]

    def _inputs(self, instruction: RunCall) -> PackedBatch:
        """Return this rank's share of a call's inputs: the dataset's keys, and keys that other calls made."""
        is_evaluation = instruction.evaluating
        graph = self.recipe.eval_graph(self.config) if is_evaluation else self.recipe.graph(self.config)
        call = instruction.function
        place = self.plan[call.name].coordinate(self.rank)
        samples: list[Sample] = []
        for id, row in instruction.shares[place.dp_rank]:
            samples.append(Sample(id, row))

        rows = self._rows(instruction.eval_set)
        tokens: dict[str, list[Tensor]] = {}
        singles: dict[str, list[Tensor]] = {}
        dtypes: dict[str, torch.dtype] = {}
        for key in call.inputs:
            if key in graph.producer:
                column = [self.store.get(instruction.job, key, sample.id) for sample in samples]
            else:
                column = [rows.tensors(sample.row)[key] for sample in samples]
            columns = singles if key in graph.per_sample else tokens
            columns[key] = column
            dtypes[key] = self._dtype(instruction, key)
        return pack(samples, tokens, singles, dtypes)

    def _dtype(self, instruction: RunCall, key: str) -> torch.dtype:
        """Return the type of a key, which is needed where there is no sample."""
        if key in instruction.dtypes:
            return getattr(torch, instruction.dtypes[key])
        return self._rows(instruction.eval_set).tensors(0)[key].dtype


HANDLERS: Mapping[type[Instruction], Callable[[Worker, Any], dict[str, Any] | None]] = {
    RunCall: Worker._run_call,
    Move: lambda worker, instruction: worker.store.move(instruction),
    Reallocate: lambda worker, instruction: worker.replicas.reallocate(instruction),
    Release: lambda worker, instruction: worker.replicas.engine(instruction.replica).release(),
    Offload: lambda worker, instruction: worker.replicas.offload(instruction),
    Save: lambda worker, instruction: worker.replicas.save(instruction),
    Snapshot: Worker._begin_snapshot,
    Flush: Worker._end_snapshot,
    Forget: Worker._forget,
}
"""What a worker does for each kind of instruction; the result is what `Done` says of it."""


def one_line(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"


def _metrics(output: CallOutput) -> dict[str, Any]:
    """Return what `Done` says of a call's metrics."""
    means: dict[str, tuple[float, float]] = {}
    peaks: dict[str, float] = {}
    for name, metric in read(output.metrics).items():
        if isinstance(metric, Peak):
            peaks[name] = metric.largest
        else:
            means[name] = (float(metric.total), metric.weight)
    return {"metrics": means, "peaks": peaks}


def _outputs(batch: PackedBatch, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return what `Done` says of a batch of outputs."""
    lengths: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for key in keys:
        tensors = batch.unpacked(key)
        lengths[key] = tuple(map(len, tensors))
        dtype = str(batch[key].dtype)
        dtypes[key] = dtype.removeprefix("torch.")

    samples = tuple(sample.id for sample in batch.samples)
    return {
        "samples": samples,
        "lengths": lengths,
        "dtypes": dtypes,
    }
