"""Times the scheduler alone: PPO's steps, reported by ranks that are nowhere."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.control import make_plan, ppo_config
from benchmarks.fake_launcher import scripts
from realrl.api.messages import Done
from realrl.program.events import Closed, Event, Job, Reported
from realrl.program.instructions import Instruction, RunCall
from realrl.program.jobs import compile_run, in_order
from realrl.program.scheduler import Scheduler
from realrl.recipes.ppo_math import PPO_MATH
from realrl.runtime.master.master import OPEN_JOBS
from realrl.runtime.master.schedule import Training
from realrl.runtime.simulated_workers import outputs


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One number of ranks."""

    workers: int
    max_staleness: int
    events: int
    """Reports of single ranks, and stages."""
    instructions: int
    seconds: float
    """Processor time in the scheduler, over all events."""
    events_per_min: float


@dataclass(frozen=True)
class Rows:
    """Prompts of ten tokens."""

    number: int
    levels = ()
    sets = ()

    def __len__(self) -> int:
        return self.number

    def length(self, row: int) -> int:
        return 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is scheduled."""

    workers: int
    steps: int
    group_size: int
    allocation: str
    max_staleness: int


class Drive:
    """Feeds a scheduler as the master does, and counts."""

    def __init__(self, settings: Settings) -> None:
        workers, group_size, ahead = settings.workers, settings.group_size, settings.max_staleness
        config = ppo_config(workers, settings.steps, group_size, settings.allocation, Path(), ahead)
        self._plan, self._scripts = make_plan(config), scripts(PPO_MATH.graph(config), 0.0)
        programs = compile_run(PPO_MATH, config, self._plan)
        schedule = Training(config, programs, group_size, Rows(workers), None, Path())
        self._stages = in_order(schedule.jobs(), schedule.open_ahead)
        self._next = next(self._stages, None)
        self._most_open = OPEN_JOBS + ahead
        self._scheduler = Scheduler()
        self._open: list[Job] = []
        self._sent: deque[Instruction] = deque()
        self.events, self.instructions, self.seconds = 0, 0, 0.0
        self.stages = 0
        """Among the events."""

    def run(self) -> None:
        """Every step, instruction by instruction."""
        self._begin()
        while self._sent:
            self._handle(list(self._reports(self._sent.popleft())))
            for job in [job for job in self._open if not self._scheduler.is_open(job)]:
                self._scheduler.handle(Closed(job.number))
                self._open.remove(job)
            self._begin()
        assert not self._open, "the run stands still"

    def _begin(self) -> None:
        while self._next and (self._next.job in self._open or len(self._open) < self._most_open):
            stage, self._next = self._next, next(self._stages, None)
            self._open += [] if stage.job in self._open else [stage.job]
            self.stages += 1
            self._handle([stage])

    def _handle(self, events: list[Event]) -> None:
        begin_s = time.thread_time()
        emitted = [instruction for event in events for instruction in self._scheduler.handle(event)]
        self.seconds += time.thread_time() - begin_s
        self.events += len(events)
        sent = [instruction for instruction in emitted if isinstance(instruction, Instruction)]
        self.instructions += len(sent)
        self._sent.extend(sent)

    def _reports(self, instruction: Instruction) -> Iterator[Reported]:
        """Of all ranks, in any order."""
        ranks = random.Random(instruction.seq).sample(instruction.ranks, len(instruction.ranks))
        for rank in ranks:
            said = self._said(instruction, rank) if isinstance(instruction, RunCall) else {}
            yield Reported(rank, Done(seq=instruction.seq, started_s=0.0, ended_s=0.0, **said))

    def _said(self, run: RunCall, rank: int) -> dict:
        return outputs(self._scripts[run.call], self._plan[run.call], run.shares, rank)


def measure(settings: Settings, rounds: int) -> Row:
    """The run in which the median round took its time."""
    drives = [Drive(settings) for _ in range(rounds)]
    for drive in drives:
        drive.run()
    drive = sorted(drives, key=lambda drive: drive.seconds)[rounds // 2]
    return Row(
        workers=settings.workers,
        max_staleness=settings.max_staleness,
        events=drive.events,
        instructions=drive.instructions,
        seconds=drive.seconds,
        events_per_min=60 * drive.events / drive.seconds,
    )
