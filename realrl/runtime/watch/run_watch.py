"""Shows a person what a run waits for: its status, its stacks on demand, and what hung.

RUN/status.json     what every worker does; written twice a second
RUN/stacks.wanted   whoever makes this file gets ──▶ RUN/stacks.txt
RUN/hang.txt        where every rank was when an instruction took too long
"""

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
        self._directory = directory
        self._launcher = launcher
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
        """The stacks that were asked for and have not all come."""
        self._attends = False

    def begin(self, num_steps: int) -> None:
        """Note that workers start, for the first time or again; they can show no stacks before `attend`."""
        self._dump = None
        self._attends = False
        self._write(phase="starts", phase_since_s=time.time(), num_steps=num_steps, step=None, scene=Scene())

    def attend(self) -> None:
        """Note that workers are up: from now on, requests for stacks are answered."""
        self._attends = True

    def say(self, phase: str, *, is_over: bool = False) -> None:
        """Write what the run does from now on."""
        self._write(phase=phase, phase_since_s=time.time(), is_over=is_over)

    def look(self, scene: Callable[[], Scene]) -> None:
        """Refresh the status when that is due, and answer requests for stacks; call this on every poll."""
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        self._show(scene())
        if self._dump is None:
            if self._attends and self._is_asked():
                self._dump = Dump(self._launcher, self.ranks)
        elif self._dump.has_come():
            answers = self._dump.answers()
            shown = all_stacks(self._status.scene, answers, own_stacks())
            write_atomically(self._directory / STACKS, shown)
            self._dump = None

    def _is_asked(self) -> bool:
        """Return whether somebody who may write to the directory asked for stacks, and clear the request."""
        try:
            (self._directory / WANTED).unlink()
            return True
        except OSError:
            return False

    def hang(self, scene: Scene, work: Work, did: str, edges: Sequence[str]) -> tuple[str, str]:
        """Write to a file where every rank is, because `work` takes too long.

        Returns a message that names the ranks to blame, of which it says what they `did`, and where the file
        is.
        """
        dump = Dump(self._launcher, self.ranks)
        answers = dump.wait()
        culprit = find_culprit(work.ranks, answers)
        message = f"{ranks_in_words(culprit.ranks)} {did}: {culprit.why}"

        path = self._free_path()
        shown = all_stacks(scene, answers, own_stacks())
        report = hang_report(message, work, edges, shown)
        write_atomically(path, report)
        return message, f"all stacks are in {path}"

    def _show(self, scene: Scene) -> None:
        """Write what workers do; a new step is a new phase."""
        before = self._status
        step = before.step if scene.step is None else scene.step
        since_s = before.phase_since_s if step == before.step else time.time()
        self._write(scene=scene, step=step, phase_since_s=since_s)

    def _free_path(self) -> Path:
        """Return a path of its own for each hang: reports from before a restart stay."""
        earlier = list(self._directory.glob(f"{_HANG}*.txt"))
        number = f"-{len(earlier) + 1}" if earlier else ""
        return self._directory / f"{_HANG}{number}.txt"

    def _write(self, **changes: object) -> None:
        self._status = msgspec.structs.replace(self._status, written_s=time.time(), **changes)
        try:
            write_atomically(self._directory / STATUS, msgspec.json.encode(self._status), durable=False)
        except OSError as error:  # the run is worth more than its status
            logger.warning("cannot write %s: %s", self._directory / STATUS, error)

    def __enter__(self) -> Watch:
        # Whoever asked an earlier start of the run waits no more.
        (self._directory / WANTED).unlink(missing_ok=True)
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
