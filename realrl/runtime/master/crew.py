"""The workers as the master sees them: every wait has an owner, a deadline and a name."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from realrl.api.launcher import Launcher
from realrl.api.messages import Done, Failed, Hello, Preempt, Ready, Setup, Stop, ToMaster, Underway
from realrl.base.watching import AttentiveClock
from realrl.program.deadlines import Deadlines, Outstanding
from realrl.program.instructions import Instruction
from realrl.program.scheduler import Waiting
from realrl.runtime.control.log_throttle import Drops
from realrl.runtime.control.master_channel import MasterChannel
from realrl.runtime.failure import RunFailed, RunRefused
from realrl.runtime.watch.activity import scene_of, set_up_scene, work_of
from realrl.runtime.watch.run_watch import Watch
from realrl.runtime.watch.status import Scene

logger = logging.getLogger(__name__)

_POLL_S = 0.2
_AWAY_S = 1.0
"""After this time without reading, messages may have piled up."""
_READING_S = 10.0
"""After this time of reading without such a break, no old message can be left."""
_BLAME_S = 2.0
"""A death may be noticed so much later than the failures that it causes elsewhere."""
_LOOK_FOR_DEATH_S = 0.05


class Running(NamedTuple):
    """An instruction that workers are busy with, and how many of its samples they reported as done."""

    instruction: Instruction
    done: int
    total: int

    def __str__(self) -> str:
        if not self.total:
            return str(self.instruction)
        return f"{self.instruction} ({self.done}/{self.total})"


class Crew:
    """Sends instructions, brings reports, and raises `RunFailed` when a worker fails, dies or is late."""

    def __init__(self, channel: MasterChannel, launcher: Launcher, watch: Watch, timeout_s: float) -> None:
        """An instruction fails if it makes no progress for `timeout_s`."""
        self._channel = channel
        self._launcher = launcher
        self._watch = watch
        self._ranks = watch.ranks
        self._clock = AttentiveClock()
        self._deadlines = Deadlines(timeout_s, self._clock.now_s())
        self._drops = Drops(logger)
        self._checked_s = 0.0
        """When the launcher was last asked for workers that ended."""
        self._read_s = 0.0
        """When a message was last looked for."""
        self._reading_since_s = 0.0
        """Since when messages have been read without a break."""
        self._underway: dict[tuple[int, int], Underway] = {}
        """The last report of progress, by instruction and rank."""

    def wait_for_workers(self) -> None:
        """Wait for every worker to dial in."""
        self._gather(Hello, "dial in")
        self._watch.attend()

    def set_up(self, setup: Setup) -> None:
        """Have every worker build its part."""
        self._channel.send(self._ranks, setup)
        self._gather(Ready, "set up")

    def send(self, instruction: Instruction | Preempt) -> None:
        """Send an instruction to its ranks; from now on it has a deadline."""
        self._channel.send(instruction.ranks, instruction)
        if isinstance(instruction, Instruction):
            self._deadlines.sent(instruction, self._clock.now_s())

    def receive(
        self,
        on_progress: Callable[[], None] = lambda: None,
        waiting: Callable[[], Sequence[Waiting]] = tuple,
    ) -> tuple[int, Instruction, Done]:
        """Return the next report: the rank, its instruction, and the result.

        `on_progress` is called whenever `running` has changed, and several times a second; `waiting` returns
        what cannot start yet.

        Raises:
            RunFailed: a worker failed, died or is late.
        """
        while True:
            self._watch.look(lambda: self._scene(waiting()))
            if time.monotonic() - self._read_s > _AWAY_S:
                self._reading_since_s = time.monotonic()
            received = self._channel.receive(_POLL_S)
            self._read_s = time.monotonic()
            self._require_health(received)
            if self._has_read_all(received):
                self._require_progress(waiting)

            match received:
                case rank, Done() as done if self._is_asked_for(rank, done.seq):
                    self._underway.pop((done.seq, rank), None)
                    instruction = self._deadlines.reported(rank, done.seq, self._clock.now_s())
                    return rank, instruction, done
                case rank, Underway() as underway if self._is_asked_for(rank, underway.seq):
                    self._take_in(rank, underway)
                    on_progress()
                case None:
                    on_progress()
                    if not self._deadlines.running():
                        raise RuntimeError("nothing is under way, and nothing else comes")

    def _is_asked_for(self, rank: int, seq: int) -> bool:
        """Return whether a rank was sent the instruction that it speaks of; if not, drop the message."""
        if self._deadlines.is_at_hand(rank, seq):
            return True
        self._drops.note(f"rank {rank} speaks of {seq}, which it was not asked for")
        return False

    def _require_progress(self, waiting: Callable[[], Sequence[Waiting]]) -> None:
        """
        Raises:
            RunFailed: an instruction made no progress for too long.
        """
        late = self._deadlines.overdue(self._clock.now_s())
        if late is not None:
            raise self._late(late, waiting())

    def _take_in(self, rank: int, underway: Underway) -> None:
        """Note a report of progress: a rank that reports the same again makes none."""
        key = (underway.seq, rank)
        before = self._underway.get(key)
        steps_before = before.steps if before else 0
        if underway.steps > steps_before:
            self._deadlines.progressed(underway.seq, self._clock.now_s())
        self._underway[key] = underway

    @property
    def running(self) -> list[Running]:
        """The instructions that workers are busy with."""
        return [self._running(instruction) for instruction in self._deadlines.running()]

    def _running(self, instruction: Instruction) -> Running:
        done = 0
        total = 0
        for (seq, _), underway in self._underway.items():
            if seq == instruction.seq:
                done += underway.done
                total += underway.total
        return Running(instruction, done, total)

    def stop_workers(self) -> None:
        """Tell every worker that the run is over."""
        self._channel.send(self._ranks, Stop())

    def _gather(self, kind: type[ToMaster], what: str) -> None:
        """Wait until every rank has sent a message of this kind.

        Raises:
            RunFailed: a worker failed, died or is late.
        """
        self._watch.say(f"workers {what}")
        missing = set(self._ranks)
        scene = partial(set_up_scene, what, missing, self._ranks, time.time())
        deadline_s = self._clock.now_s() + self._deadlines.timeout_s
        while missing:
            self._watch.look(scene)
            received = self._channel.receive(_POLL_S)
            self._require_health(received)
            match received:
                case rank, message if isinstance(message, kind):
                    missing.discard(rank)
                case None if self._clock.now_s() > deadline_s:
                    did = f"did not {what} within {self._limit}"
                    raise self._hung(scene(), did)

    def _hung(self, scene: Scene, did: str) -> RunFailed:
        """Return the failure of a run whose set-up, all of a scene's work, takes too long."""
        (work,) = scene.work
        message, see = self._watch.hang(scene, work, did, ())
        return self._end(message, see)

    def _require_health(self, received: tuple[int, ToMaster] | None) -> None:
        """
        Raises:
            RunFailed: `received` says that a worker failed, or a worker has died.
        """
        match received:
            case rank, Failed() as failed:
                raise self._failed(rank, failed)
        if time.monotonic() - self._checked_s > _POLL_S:
            self._checked_s = time.monotonic()
            if died := self._died():
                raise died

    def _has_read_all(self, received: object) -> bool:
        """Whether no report is left that came long ago, while the master was busy elsewhere.

        That is so if there is none, or if the master has long done nothing but read.
        """
        if received is None:
            self._reading_since_s = self._read_s
            return True
        return self._read_s - self._reading_since_s > _READING_S

    def _died(self) -> RunFailed | None:
        """Return the failure of a run whose worker has ended; None if none has."""
        # A worker that ended with an error explains one that ended without.
        ended = sorted(self._launcher.poll(), key=lambda end: end[1] == 0)
        if not ended:
            return None
        rank, code = ended[0]
        what = f"rank {rank} died ({_cause(code)}) {self._busy_with(rank)}"
        return self._end(what, self._see_log(rank))

    def _failed(self, rank: int, failed: Failed) -> RunFailed:
        """Return the failure of a run whose worker reported a failure.

        It names a worker that died, if that is why `rank` failed: peers notice first.
        """
        logger.error("rank %d failed:\n%s", rank, failed.traceback)
        see = self._see_log(rank)
        if failed.refused:
            return RunRefused(failed.error, see)

        deadline_s = time.monotonic() + _BLAME_S
        while time.monotonic() < deadline_s:
            if died := self._died():
                return died
            time.sleep(_LOOK_FOR_DEATH_S)

        instruction = None if failed.seq is None else self._deadlines.find(rank, failed.seq)
        what = f"in {instruction}" if instruction else self._busy_with(rank)
        return self._end(f"rank {rank} failed {what}: {failed.error}", see)

    def _late(self, late: Outstanding, waiting: Sequence[Waiting]) -> RunFailed:
        """Return the failure of a run in which an instruction makes no progress."""
        seq = late.instruction.seq
        edges: list[str] = []
        for waits in waiting:
            if seq in waits.edges:
                edges.append(waits.edges[seq])

        work = work_of(late, self._epoch_s())
        did = f"made no progress with {late.instruction} for {self._limit}"
        scene = self._scene(waiting)
        message, see = self._watch.hang(scene, work, did, edges)
        return self._end(message, see)

    @property
    def _limit(self) -> str:
        return f"{self._deadlines.timeout_s:g} s (call_timeout_s)"

    def _scene(self, waiting: Sequence[Waiting]) -> Scene:
        return scene_of(self._deadlines, self._underway, waiting, self._ranks, epoch_s=self._epoch_s())

    def _epoch_s(self) -> float:
        """Return the seconds since the epoch at which the clock of the deadlines was zero."""
        return time.time() - self._clock.now_s()

    def _end(self, what: str, see: str) -> RunFailed:
        """Return a failure; what the launcher knows of its cause comes first."""
        why = self._launcher.explain()
        return RunFailed(f"{why}; {what}" if why else what, see)

    def _busy_with(self, rank: int) -> str:
        """Say what a rank was doing."""
        if instruction := self._deadlines.current(rank):
            return f"in {instruction}"
        running = self._deadlines.running()
        return f"while it waited for {running[0]}" if running else "during set-up"

    def _see_log(self, rank: int) -> str:
        return f"see {self._launcher.log_path(rank)}"


def _cause(code: int) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
