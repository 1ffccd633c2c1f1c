"""Measures the control plane: a run's real master, with workers that are simulated."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.fake_launcher import Crowd
from benchmarks.options import BenchmarkFailed
from benchmarks.tiny import write_model, write_problems
from realrl.api.allocation import parse_allocation
from realrl.api.config import ModelConfig, TrainedModelConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind
from realrl.api.mesh import ExecutionPlan
from realrl.api.messages import Done, ToMaster
from realrl.program.instructions import Instruction
from realrl.recipes.parts.config import CriticConfig
from realrl.recipes.ppo_math import PPO_MATH, PPOMathConfig, PPOMathSettings
from realrl.runtime.control.master_channel import MasterChannel
from realrl.runtime.control.wire import ToWorker
from realrl.runtime.failure import RunFailed
from realrl.runtime.run import run
from realrl.runtime.simulated_workers import Notes

_WARM_UP = 1
"""Steps before those that are measured."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is run."""

    workers: int
    steps: int
    seconds: float
    """That each call takes."""
    group_size: int
    """Samples of each prompt; there are as many prompts as workers."""
    allocation: str
    """All on all ranks if empty."""
    processes: int
    """That host the simulated workers."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    workers: int
    allocation: str
    seconds_a_call: float
    start_s: float
    """From the run's start until every rank that begins the first step has its first instruction."""
    steps_per_s: float
    instructions_a_step: float
    reports_a_step: float
    dispatch_p50_s: float
    """From when the report that allows an instruction leaves its worker, until the instruction is at a rank;
    of each rank."""
    dispatch_p99_s: float
    master_share: float
    """Of a core: the processor time of all of the master's threads."""

    @property
    def report_s(self) -> float:
        """The master's processor time for a report, and all that comes of it."""
        return self.master_share / (self.steps_per_s * self.reports_a_step)


@dataclass
class Log:
    """What the master took in and sent out."""

    causes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """The report, by (seq, rank), that was the last before each instruction."""
    begun: dict[int, tuple[float, float]] = field(default_factory=dict)
    """When each step's first instruction was sent, on the clock and in processor time."""
    reports: int = 0
    _last: tuple[int, int] | None = None

    def took_in(self, rank: int, message: ToMaster) -> None:
        if isinstance(message, Done):
            self._last = message.seq, rank
            self.reports += 1

    def sent_out(self, message: ToWorker) -> None:
        if isinstance(message, Instruction):
            if self._last:
                self.causes[message.seq] = self._last
            if message.step not in self.begun:
                self.begun[message.step] = time.perf_counter(), time.process_time()


class LoggedChannel(MasterChannel):
    """The master's end of the channel; it keeps a log."""

    def __init__(self, log: Log, host: str, num_workers: int) -> None:
        super().__init__(host, num_workers)
        self._log = log

    def send(self, ranks: Iterable[int], message: ToWorker) -> None:
        self._log.sent_out(message)
        super().send(ranks, message)

    def receive(self, timeout_s: float) -> tuple[int, ToMaster] | None:
        if received := super().receive(timeout_s):
            self._log.took_in(*received)
        return received


def measure(settings: Settings) -> Row:
    """Run the master, to the end of a run.

    Raises:
        BenchmarkFailed: the run did.
    """
    with TemporaryDirectory() as name:
        directory, log = Path(name), Log()
        steps = settings.steps + _WARM_UP
        config = ppo_config(settings.workers, steps, settings.group_size, settings.allocation, directory)
        write_model(directory / "model")
        write_problems(directory / "rows.jsonl", settings.workers)
        crowd = Crowd(PPO_MATH.graph(config), settings.seconds, settings.processes, directory)
        began_ns = time.monotonic_ns()
        with (directory / "output.log").open("w") as output, redirect_stdout(output):
            _run(config, crowd, log)
        return _row(settings, config.allocation, log, crowd.notes(), began_ns)


def _run(config: PPOMathConfig, crowd: Crowd, log: Log) -> None:
    """Have the master keep `log`."""
    try:
        run(PPO_MATH, config, make_plan(config), crowd, partial(LoggedChannel, log))
    except RunFailed as error:
        raise BenchmarkFailed(str(error)) from None


def ppo_config(
    workers: int, steps: int, group_size: int, allocation: str, directory: Path, max_staleness: int = 0
) -> PPOMathConfig:
    """PPO with a critic and a reference, a prompt for each worker."""
    return PPOMathConfig(
        num_steps=steps,
        max_staleness=max_staleness,
        batch_size=workers,
        device="cpu",
        runs_dir=str(directory / "runs"),
        allocation=allocation or default_allocation(workers),
        actor=TrainedModelConfig(model=ModelConfig(path=str(directory / "model"))),
        critic=CriticConfig(),
        data=DataConfig(path=str(directory / "rows.jsonl"), template="plain"),
        ppo=PPOMathSettings(group_size=group_size, kl_coef=0.05),
    )


def default_allocation(workers: int) -> str:
    """Everyone generates; training cuts the models in all three ways."""
    return f"actor_gen:d{workers},reward:d{workers},*:p2d{workers // 4}t2"


def make_plan(config: PPOMathConfig) -> ExecutionPlan:
    calls = PPO_MATH.graph(config).calls
    generating = [call.name for call in calls.values() if call.kind is CallKind.GENERATE]
    return parse_allocation(config.allocation, list(calls), generating, {})


def _row(settings: Settings, allocation: str, log: Log, notes: Sequence[Notes], began_ns: int) -> Row:
    reported = {(seq, rank): at_ns for part in notes for seq, rank, at_ns in part.reported}
    arrived = [entry for part in notes for entry in part.arrived]
    first = min(seq for seq, _, _ in arrived)
    latencies_s = [
        (at_ns - reported[log.causes[seq]]) / 1e9 for seq, _, at_ns in arrived if seq in log.causes
    ]
    cuts = quantiles(latencies_s, n=100)
    (begin_s, begin_cpu_s), (end_s, end_cpu_s) = log.begun[_WARM_UP], log.begun[settings.steps + _WARM_UP]
    steps = settings.steps + _WARM_UP
    return Row(
        workers=settings.workers,
        allocation=allocation,
        seconds_a_call=settings.seconds,
        start_s=max(at_ns - began_ns for seq, _, at_ns in arrived if seq == first) / 1e9,
        steps_per_s=settings.steps / (end_s - begin_s),
        instructions_a_step=(1 + max(seq for seq, _, _ in arrived)) / steps,
        reports_a_step=log.reports / steps,
        dispatch_p50_s=cuts[49],
        dispatch_p99_s=cuts[98],
        master_share=(end_cpu_s - begin_cpu_s) / (end_s - begin_s),
    )
