"""Lets a person see what a run waits for: its status, its stacks on demand, and what hung."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from realrl.api.launcher import Launcher
from realrl.base.files import write_atomically
from realrl.base.processes import start_of
from realrl.runtime.failure import RunFailed, Terminated
from realrl.runtime.watch.hang import all_stacks, find_culprit, hang_report
from realrl.runtime.watch.stacks import STACKS, WANTED, Dump, own_stacks
from realrl.runtime.watch.status import STATUS, Scene, Status, Work, ranks_in_words

logger = logging.getLogger(__name__)

_HANG = "hang"
_LOOK_EVERY_S = 0.5


class Watch:
    """Keeps the files of a run's directory. Use it as a context, whose end is the run's."""

    def __init__(self, directory: Path, launcher: Launcher, num_workers: int) -> None:
        self.ranks = range(num_workers)
        self._directory, self._launcher = directory, launcher
        now_s = time.time()
        self._status = Status(
            host=socket.gethostname(),
            pid=os.getpid(),
            process_start=start_of(os.getpid()),
            began_s=now_s,
            written_s=now_s,
            phase="starts",
            phase_since_s=now_s,
            num_steps=0,
        )
        self._looked_s = 0.0
        self._dump: Dump | None = None
        self._attends = False

    def begin(self, num_steps: int) -> None:
        """Workers start, for the first time or again; they can show no stacks before `attend`."""
        self._dump, self._attends = None, False
        self._write(phase="starts", phase_since_s=time.time(), num_steps=num_steps, step=None, scene=Scene())

    def attend(self) -> None:
        """Workers are up: from now on who wants stacks gets them."""
        self._attends = True

    def say(self, phase: str, *, is_over: bool = False) -> None:
        """What the run is at, from now on."""
        self._write(phase=phase, phase_since_s=time.time(), is_over=is_over)

    def look(self, scene: Callable[[], Scene]) -> None:
        """To be called again and again: brings the status up to date when that is due, and shows stacks to
        who wants them.
        """
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        self._show(scene())
        if self._dump is None and self._attends and self._is_asked():
            self._dump = Dump(self._launcher, self.ranks)
        elif self._dump and self._dump.has_come():
            shown = all_stacks(self._status.scene, self._dump.answers(), own_stacks())
            write_atomically(self._directory / STACKS, shown)
            self._dump = None

    def _is_asked(self) -> bool:
        """Whether somebody who may write here wants stacks."""
        try:
            (self._directory / WANTED).unlink()
            return True
        except OSError:
            return False

    def hang(self, scene: Scene, work: Work, did: str, edges: Sequence[str]) -> tuple[str, str]:
        """Write down where every rank stands, as `work` takes too long; says who is to blame, and where.

        `did` is what the message says of those.
        """
        answers = Dump(self._launcher, self.ranks).wait()
        ranks, why = find_culprit(work.ranks, answers)
        path = self._free_path()
        message = f"{ranks_in_words(ranks)} {did}: {why}"
        shown = all_stacks(scene, answers, own_stacks())
        write_atomically(path, hang_report(message, work, edges, shown))
        return message, f"all stacks are in {path}"

    def _show(self, scene: Scene) -> None:
        step = self._status.step if scene.step is None else scene.step
        since_s = self._status.phase_since_s if step == self._status.step else time.time()
        self._write(scene=scene, step=step, phase_since_s=since_s)

    def _free_path(self) -> Path:
        """An earlier hang of a run that was gone on with stays."""
        taken = sum(1 for _ in self._directory.glob(f"{_HANG}*.txt"))
        return self._directory / f"{_HANG}{f'-{taken + 1}' if taken else ''}.txt"

    def _write(self, **changes: object) -> None:
        self._status = msgspec.structs.replace(self._status, written_s=time.time(), **changes)
        try:
            write_atomically(self._directory / STATUS, msgspec.json.encode(self._status), durable=False)
        except OSError as error:  # a run that can go on is worth more than its status
            logger.warning("cannot write %s: %s", self._directory / STATUS, error)

    def __enter__(self) -> Watch:
        (self._directory / WANTED).unlink(missing_ok=True)  # that nobody waits for any more
        self.say("starts")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _) -> None:
        self.say("ended" if error is None else f"failed: {_cause(error)}", is_over=True)


def _cause(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped by Ctrl-C"
    if isinstance(error, Terminated):
        return "stopped by SIGTERM"
    return str(error) if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
