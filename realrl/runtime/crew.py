"""The workers as the master sees them: every wait has an owner, a deadline and a name."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from realrl.api.messages import (
    Done,
    Failed,
    Hello,
    Instruction,
    Ready,
    Setup,
    StepAside,
    Stop,
    ToMaster,
    Underway,
)
from realrl.runtime.channel import MasterChannel
from realrl.runtime.deadlines import Deadlines, Outstanding
from realrl.runtime.failure import RunFailed
from realrl.runtime.launcher import Launcher

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_BLAME_S = 2.0
"""How long a death may take to be seen after the failures that it causes elsewhere."""
_STACKS_S = 1.0


class Running(NamedTuple):
    """An instruction that workers are busy with, and how many of its samples are done, as far as they say."""

    instruction: Instruction
    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.instruction} ({self.done}/{self.total})" if self.total else str(self.instruction)


class Crew:
    """Sends instructions, brings reports, and raises `RunFailed` when a worker fails, dies or is late."""

    def __init__(
        self, channel: MasterChannel, launcher: Launcher, num_workers: int, timeout_s: float
    ) -> None:
        self._channel, self._launcher = channel, launcher
        self._ranks = range(num_workers)
        self._deadlines = Deadlines(timeout_s)
        self._checked_s = 0.0
        self._underway: dict[tuple[int, int], Underway] = {}
        """By instruction and rank."""

    def set_up(self, setup: Setup) -> None:
        """Wait for every worker to dial in, and have it build its part."""
        self._gather(Hello, "dial in")
        self._channel.send(self._ranks, setup)
        self._gather(Ready, "set up")

    def send(self, instruction: Instruction | StepAside) -> None:
        self._channel.send(instruction.ranks, instruction)
        if isinstance(instruction, Instruction):
            self._deadlines.sent(instruction, time.monotonic())

    def receive(self, on_progress: Callable[[], None] = lambda: None) -> tuple[int, Instruction, Done]:
        """The next report: the rank, what it did, and what came of it.

        `on_progress` is called meanwhile, whenever `running` says something new.
        """
        while True:
            match self._receive():
                case rank, Done() as done:
                    self._underway.pop((done.seq, rank), None)
                    return rank, self._deadlines.reported(rank, done.seq, time.monotonic()), done
                case rank, Underway() as underway:
                    self._underway[underway.seq, rank] = underway
                    on_progress()
                case None:
                    if late := self._deadlines.overdue(time.monotonic()):
                        raise self._late(late)

    @property
    def running(self) -> list[Running]:
        """What the workers are busy with."""
        return [self._running(instruction) for instruction in self._deadlines.running()]

    def _running(self, instruction: Instruction) -> Running:
        parts = [u for (seq, _), u in self._underway.items() if seq == instruction.seq]
        return Running(instruction, sum(u.done for u in parts), sum(u.total for u in parts))

    def dismiss(self) -> None:
        """Tell every worker that the run is over."""
        self._channel.send(self._ranks, Stop())

    def _gather(self, kind: type[ToMaster], what: str) -> None:
        """Wait until every rank has sent a message of this kind."""
        missing = set(self._ranks)
        deadline_s = time.monotonic() + self._deadlines.timeout_s
        while missing:
            match self._receive():
                case rank, message if isinstance(message, kind):
                    missing.discard(rank)
                case None if time.monotonic() > deadline_s:
                    self._dump_stacks()
                    raise self._end(
                        f"{_ranks(missing)} did not {what} within {self._deadlines.timeout_s:g} s"
                        f" (call_timeout_s); see {self._logs(missing)}"
                    )

    def _receive(self) -> tuple[int, ToMaster] | None:
        """One message, or None after a short while; a failure or a death raises."""
        received = self._channel.receive(_POLL_S)
        if received and isinstance(received[1], Failed):
            raise self._failed(*received)
        if time.monotonic() - self._checked_s > _POLL_S:
            self._checked_s = time.monotonic()
            if died := self._died():
                raise died
        return received

    def _died(self) -> RunFailed | None:
        ended = sorted(self._launcher.poll(), key=lambda end: end[1] == 0)
        if not ended:
            return None
        rank, code = ended[0]
        return self._end(
            f"rank {rank} died ({_cause(code)}) {self._busy_with(rank)}; see {self._logs([rank])}"
        )

    def _failed(self, rank: int, failed: Failed) -> RunFailed:
        """Blame a worker that died, if that is why `rank` failed: peers notice first."""
        logger.error("rank %d failed:\n%s", rank, failed.traceback)
        deadline_s = time.monotonic() + _BLAME_S
        while time.monotonic() < deadline_s:
            if died := self._died():
                return died
            time.sleep(0.05)
        instruction = None if failed.seq is None else self._deadlines.find(rank, failed.seq)
        what = f"in {instruction}" if instruction else self._busy_with(rank)
        return self._end(f"rank {rank} failed {what}: {failed.error}; see {self._logs([rank])}")

    def _late(self, late: Outstanding) -> RunFailed:
        self._dump_stacks()
        return self._end(
            f"{_ranks(late.awaited)} did not end {late.instruction} within {self._deadlines.timeout_s:g} s "
            f"(call_timeout_s); for where it stands, see the stacks in {self._logs(late.awaited)}"
        )

    def _end(self, message: str) -> RunFailed:
        """What the launcher knows of it comes first."""
        why = self._launcher.explain()
        return RunFailed(f"{why}; {message}" if why else message)

    def _busy_with(self, rank: int) -> str:
        if instruction := self._deadlines.current(rank):
            return f"in {instruction}"
        running = self._deadlines.running()
        return f"while it waited for {running[0]}" if running else "during set-up"

    def _dump_stacks(self) -> None:
        self._launcher.dump_stacks()
        time.sleep(_STACKS_S)

    def _logs(self, ranks: Collection[int]) -> str:
        return ", ".join(str(self._launcher.log_path(rank)) for rank in sorted(ranks))


def _ranks(ranks: Collection[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"


def _cause(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
