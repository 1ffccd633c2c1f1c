"""The workers as the master sees them: every wait has an owner, a deadline and a name."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

from realrl.api.launcher import Launcher
from realrl.api.messages import Done, Failed, Hello, Ready, Setup, StepAside, Stop, ToMaster, Underway
from realrl.base.watching import AttentiveClock
from realrl.program.deadlines import Deadlines, Outstanding
from realrl.program.instructions import Instruction
from realrl.program.scheduler import Waiting
from realrl.runtime.control.channel import MasterChannel
from realrl.runtime.control.log_throttle import Drops
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.watch.activity import scene_of, set_up_scene, work_of
from realrl.runtime.watch.run_watch import Watch
from realrl.runtime.watch.status import Scene

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_AWAY_S, _READING_S = 1.0, 10.0
"""Without reading, messages pile up; after so long with nothing but reading they do not."""
_BLAME_S = 2.0
"""How long a death may take to be seen after the failures that it causes elsewhere."""


class Running(NamedTuple):
    """An instruction that workers are busy with, and how many of its samples are done, as far as they say."""

    instruction: Instruction
    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.instruction} ({self.done}/{self.total})" if self.total else str(self.instruction)


class Crew:
    """Sends instructions, brings reports, and raises `RunFailed` when a worker fails, dies or is late."""

    def __init__(self, channel: MasterChannel, launcher: Launcher, watch: Watch, timeout_s: float) -> None:
        self._channel, self._launcher, self._watch = channel, launcher, watch
        self._ranks = watch.ranks
        self._clock = AttentiveClock()
        self._deadlines = Deadlines(timeout_s, self._clock.now_s())
        self._drops = Drops(logger)
        self._checked_s = self._read_s = self._reading_since_s = 0.0
        self._underway: dict[tuple[int, int], Underway] = {}
        """By instruction and rank."""

    def muster(self) -> None:
        """Wait for every worker to dial in."""
        self._gather(Hello, "dial in")
        self._watch.attend()

    def set_up(self, setup: Setup) -> None:
        """Have every worker build its part."""
        self._channel.send(self._ranks, setup)
        self._gather(Ready, "set up")

    def send(self, instruction: Instruction | StepAside) -> None:
        self._channel.send(instruction.ranks, instruction)
        if isinstance(instruction, Instruction):
            self._deadlines.sent(instruction, self._clock.now_s())

    def receive(
        self,
        on_progress: Callable[[], None] = lambda: None,
        waiting: Callable[[], Sequence[Waiting]] = tuple,
    ) -> tuple[int, Instruction, Done]:
        """The next report: the rank, what it did, and what came of it.

        `on_progress` is called meanwhile, whenever `running` says something new and several times a second;
        `waiting` tells what cannot start yet.
        """
        while True:
            received = self._receive(lambda: self._scene(waiting()))
            if self._has_read_all(received) and (late := self._deadlines.overdue(self._clock.now_s())):
                raise self._late(late, waiting())
            match received:
                case rank, (Done() | Underway()) as report if not self._deadlines.is_at_hand(
                    rank, report.seq
                ):
                    self._drops.note(f"rank {rank} speaks of {report.seq}, which it was not asked for")
                case rank, Done() as done:
                    self._underway.pop((done.seq, rank), None)
                    return rank, self._deadlines.reported(rank, done.seq, self._clock.now_s()), done
                case rank, Underway() as underway:
                    self._take_in(rank, underway)
                    on_progress()
                case None:
                    on_progress()
                    if not self._deadlines.running():
                        raise RuntimeError("nothing is under way, and nothing else comes")

    def _take_in(self, rank: int, underway: Underway) -> None:
        """A rank that says the same again makes no progress."""
        before = self._underway.get((underway.seq, rank))
        if underway.steps > (before.steps if before else 0):
            self._deadlines.progressed(underway.seq, self._clock.now_s())
        self._underway[underway.seq, rank] = underway

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
        self._watch.say(f"workers {what}")
        missing, since_s = set(self._ranks), time.time()
        deadline_s = self._clock.now_s() + self._deadlines.timeout_s
        while missing:
            match self._receive(scene := partial(set_up_scene, what, missing, self._ranks, since_s)):
                case rank, message if isinstance(message, kind):
                    missing.discard(rank)
                case None if self._clock.now_s() > deadline_s:
                    did = f"did not {what} within {self._limit}"
                    raise self._end(*self._watch.hang(scene(), scene().work[0], did, ()))

    def _receive(self, scene: Callable[[], Scene]) -> tuple[int, ToMaster] | None:
        """One message, or None after a short while; a failure or a death raises."""
        self._watch.look(scene)
        if time.monotonic() - self._read_s > _AWAY_S:
            self._reading_since_s = time.monotonic()
        received = self._channel.receive(_POLL_S)
        self._read_s = time.monotonic()
        match received:
            case rank, Failed() as failed:
                raise self._failed(rank, failed)
        if time.monotonic() - self._checked_s > _POLL_S:
            self._checked_s = time.monotonic()
            if died := self._died():
                raise died
        return received

    def _has_read_all(self, received: object) -> bool:
        """Whether no report can have come long ago, while the master was busy elsewhere: none is there, or
        they come without end.
        """
        if received is None:
            self._reading_since_s = self._read_s
        return received is None or self._read_s - self._reading_since_s > _READING_S

    def _died(self) -> RunFailed | None:
        ended = sorted(self._launcher.poll(), key=lambda end: end[1] == 0)
        if not ended:
            return None
        rank, code = ended[0]
        return self._end(
            f"rank {rank} died ({_cause(code)}) {self._busy_with(rank)}", f"see {self._logs([rank])}"
        )

    def _failed(self, rank: int, failed: Failed) -> RunFailed:
        """Blame a worker that died, if that is why `rank` failed: peers notice first."""
        logger.error("rank %d failed:\n%s", rank, failed.traceback)
        if failed.refused:
            return RunRefused(failed.error, f"see {self._logs([rank])}")
        deadline_s = time.monotonic() + _BLAME_S
        while time.monotonic() < deadline_s:
            if died := self._died():
                return died
            time.sleep(0.05)
        instruction = None if failed.seq is None else self._deadlines.find(rank, failed.seq)
        what = f"in {instruction}" if instruction else self._busy_with(rank)
        return self._end(f"rank {rank} failed {what}: {failed.error}", f"see {self._logs([rank])}")

    def _late(self, late: Outstanding, waiting: Sequence[Waiting]) -> RunFailed:
        edges = [waits.edges[seq] for waits in waiting if (seq := late.instruction.seq) in waits.edges]
        work = work_of(late, self._epoch_s())
        did = f"made no progress with {late.instruction} for {self._limit}"
        return self._end(*self._watch.hang(self._scene(waiting), work, did, edges))

    @property
    def _limit(self) -> str:
        return f"{self._deadlines.timeout_s:g} s (call_timeout_s)"

    def _scene(self, waiting: Sequence[Waiting]) -> Scene:
        return scene_of(self._deadlines, self._underway, waiting, self._ranks, epoch_s=self._epoch_s())

    def _epoch_s(self) -> float:
        """What the epoch's seconds are ahead of the clock that deadlines go by."""
        return time.time() - self._clock.now_s()

    def _end(self, what: str, see: str) -> RunFailed:
        """What the launcher knows of it comes first."""
        why = self._launcher.explain()
        return RunFailed(f"{why}; {what}" if why else what, see)

    def _busy_with(self, rank: int) -> str:
        if instruction := self._deadlines.current(rank):
            return f"in {instruction}"
        running = self._deadlines.running()
        return f"while it waited for {running[0]}" if running else "during set-up"

    def _logs(self, ranks: Collection[int]) -> str:
        return ", ".join(str(self._launcher.log_path(rank)) for rank in sorted(ranks))


def _cause(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
