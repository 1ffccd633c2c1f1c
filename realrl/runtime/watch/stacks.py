"""The Python stacks of a run's workers, which each writes to its log when it is told to.

master ── signal ──▶ worker: faulthandler writes the stacks of all threads to its log
   ◀── what the log has grown by ──
"""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from collections.abc import Collection
from typing import NamedTuple

from realrl.api.launcher import Launcher

WANTED = "stacks.wanted"
"""Whoever may make this file in a run's directory asks for the stacks, which then are in `STACKS`."""
STACKS = "stacks.txt"

_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.2
_THREAD = "(most recent call first):"
_FRAME = re.compile(r'  File "([^<].*)", line (\d+) in (.+)')
"""A frame of a file: not of what Python brings along or makes up, as `<frozen importlib._bootstrap>`."""


class Frame(NamedTuple):
    """A call that a thread is in."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({self.path}:{self.line})"


NO_FRAME = Frame("", 0, "no Python")
"""The place of a thread that runs nothing of a Python file."""


class Answer(NamedTuple):
    """What a rank wrote when it was asked."""

    text: str
    state: str = ""
    """What its system says of its process, where that is known."""

    @property
    def has_stacks(self) -> bool:
        """Whether it showed its stacks."""
        return _THREAD in self.text

    @property
    def silence(self) -> str:
        """What is known of a rank that showed nothing."""
        return f"no stack within {_WITHIN_S:g} s, its process {self.state or 'stopped, stuck or gone'}"

    @property
    def stack(self) -> list[Frame]:
        """The frames of the main thread, the innermost first.

        Source: CPython, Python/traceback.c, `_Py_DumpTracebackThreads`: the main thread is written last.
        """
        _, _, of_main = self.text.rpartition(_THREAD)
        frames = []
        for path, line, function in _FRAME.findall(of_main):
            frames.append(Frame(path, int(line), function))
        return frames or [NO_FRAME]


class Dump:
    """Asks every worker for its stacks, and waits for them without blocking."""

    def __init__(self, launcher: Launcher, ranks: Collection[int]) -> None:
        self._launcher = launcher
        self._ranks = ranks
        self._begins = self._log_sizes()
        """Where in each rank's log its answer begins."""
        self._sizes = dict(self._begins)
        self._begun_s = time.monotonic()
        self._looked_s = self._begun_s
        launcher.dump_stacks()

    def has_come(self) -> bool:
        """Whether every worker has written and stopped writing, or had the time to."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return False
        self._looked_s = now_s
        before = self._sizes
        self._sizes = self._log_sizes()
        if now_s - self._begun_s > _WITHIN_S:
            return True

        # Sizes are as they were a moment ago if nobody is in the midst of writing.
        is_quiet = self._sizes == before
        return is_quiet and all(self._has_begun(rank) for rank in self._ranks)

    def wait(self) -> dict[int, Answer]:
        """Block until the answers have come, and return them."""
        while not self.has_come():
            time.sleep(_LOOK_EVERY_S)
        return self.answers()

    def answers(self) -> dict[int, Answer]:
        """Return the answers by rank, with whatever else a worker wrote to its log meanwhile."""
        answers: dict[int, Answer] = {}
        silent: list[int] = []
        for rank in self._ranks:
            answer = Answer(self._written(rank))
            answers[rank] = answer
            if not answer.has_stacks:
                silent.append(rank)

        states = self._launcher.states(silent)
        for rank in silent:
            state = states.get(rank, "")
            answers[rank] = answers[rank]._replace(state=state)
        return answers

    def _has_begun(self, rank: int) -> bool:
        return self._sizes[rank] > self._begins[rank]

    def _written(self, rank: int) -> str:
        path = self._launcher.log_path(rank)
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(self._begins[rank])
            return log.read().decode(errors="replace")

    def _log_sizes(self) -> dict[int, int]:
        return {rank: self._log_size(rank) for rank in self._ranks}

    def _log_size(self, rank: int) -> int:
        path = self._launcher.log_path(rank)
        return path.stat().st_size if path.exists() else 0


def own_stacks() -> str:
    """Return the stacks of every thread of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks = []
    for ident, frame in sys._current_frames().items():
        name = names.get(ident, ident)
        stack = "".join(traceback.format_stack(frame))
        stacks.append(f"thread {name}:\n{stack}")
    return "\n".join(stacks)
