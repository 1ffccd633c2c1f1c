"""The Python stacks of a run's workers, which each writes to its log when it is told to."""

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
"""Who may make a file of this name in a run's directory gets the stacks in one of the next."""
STACKS = "stacks.txt"

_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.2
_THREAD = "(most recent call first):"
_FRAME = re.compile(r'  File "([^<].*)", line (\d+) in (.+)')
"""Not of what Python itself brings along or makes up, as `<frozen importlib._bootstrap>`."""


class Frame(NamedTuple):
    """Where a thread is."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({self.path}:{self.line})"


_NO_FRAME = Frame("", 0, "no Python")


class Answer(NamedTuple):
    """What a rank wrote when it was asked."""

    text: str
    state: str = ""
    """What its system says of its process, where that is known."""

    @property
    def has_stacks(self) -> bool:
        return _THREAD in self.text

    @property
    def silence(self) -> str:
        """What is known of a rank that showed nothing."""
        return f"no stack within {_WITHIN_S:g} s, its process {self.state or 'stopped, stuck or gone'}"

    @property
    def stack(self) -> list[Frame]:
        """Of the main thread, which stands last; where it is comes first.

        Source: CPython, Python/traceback.c, `_Py_DumpTracebackThreads`.
        """
        found = _FRAME.findall(self.text.rpartition(_THREAD)[2])
        return [Frame(path, int(line), function) for path, line, function in found] or [_NO_FRAME]


class Dump:
    """Asks every worker for its stacks, and waits for them without standing still."""

    def __init__(self, launcher: Launcher, ranks: Collection[int]) -> None:
        self._launcher, self._ranks = launcher, ranks
        self._begins = {rank: self._size(rank) for rank in ranks}
        self._sizes = dict(self._begins)
        self._begun_s = self._looked_s = time.monotonic()
        launcher.dump_stacks()

    def has_come(self) -> bool:
        """Whether every worker has written and stopped writing, or had the time to."""
        now_s = time.monotonic()
        if now_s - self._looked_s < _LOOK_EVERY_S:
            return False
        before, self._sizes = self._sizes, {rank: self._size(rank) for rank in self._ranks}
        self._looked_s = now_s
        is_quiet = all(self._begins[rank] < size == before[rank] for rank, size in self._sizes.items())
        return is_quiet or now_s - self._begun_s > _WITHIN_S

    def wait(self) -> dict[int, Answer]:
        while not self.has_come():
            time.sleep(_LOOK_EVERY_S)
        return self.answers()

    def answers(self) -> dict[int, Answer]:
        """By rank; what else a worker wrote to its log meanwhile stands there too."""
        answers = {rank: Answer(self._written(rank)) for rank in self._ranks}
        silent = [rank for rank, answer in answers.items() if not answer.has_stacks]
        states = self._launcher.states(silent)
        return answers | {rank: answers[rank]._replace(state=states.get(rank, "")) for rank in silent}

    def _written(self, rank: int) -> str:
        path = self._launcher.log_path(rank)
        if not path.exists():
            return ""
        with path.open("rb") as log:
            log.seek(self._begins[rank])
            return log.read().decode(errors="replace")

    def _size(self, rank: int) -> int:
        path = self._launcher.log_path(rank)
        return path.stat().st_size if path.exists() else 0


def own_stacks() -> str:
    """Of every thread of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"thread {names.get(ident, ident)}:\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()
    )
