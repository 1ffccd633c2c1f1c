"""The event log of a run, in files of bounded size.

    RUN/events.jsonl      the newest: from where it begins, `realrl replay` can follow the scheduler
    RUN/events.1.jsonl    the one before, up to `events.3.jsonl`; older ones are deleted

A file begins with the scheduler's state, so each can be replayed alone. Each start of the run begins one, and
so does each restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from realrl import __version__
from realrl.program.event_log import LogWriter
from realrl.program.events import Event
from realrl.program.scheduler import Emitted
from realrl.program.scheduler_state import SchedulerState
from realrl.runtime.run_files import EVENTS

LARGEST_BYTES = 64 << 20
"""A file that has grown to this size is followed by a new one: a thousand steps of some hundred samples."""
NUM_KEPT = 4
"""Files of the log, with the newest."""
_FLUSH_EVERY_S = 0.5


class EventFiles:
    """Writes the event log of one attempt of a run. Close it at the end."""

    def __init__(self, directory: Path, state: Callable[[], SchedulerState], largest_bytes: int) -> None:
        """`state` returns the scheduler's state as it is now."""
        self._directory = directory
        self._state = state
        self._largest_bytes = largest_bytes
        self._begin()

    def _begin(self) -> None:
        """Begin a new file, with the scheduler's state."""
        _make_room(self._directory)
        self._writer = LogWriter(__version__, self._state())
        self._file: BinaryIO = (self._directory / EVENTS).open("wb")
        self._flushed_s = time.monotonic()
        self._file.write(self._writer.head())

    def record(self, event: Event, emitted: Sequence[Emitted]) -> None:
        """Note that the scheduler was told of `event`, and sent `emitted`.

        Raises:
            OSError: the disk is full or gone.
        """
        self._file.write(self._writer.lines(event, emitted, time.time()))
        if self._file.tell() >= self._largest_bytes:
            self._file.close()
            self._begin()

    def flush(self) -> None:
        """Bring to the file what was recorded, at most twice a second."""
        now_s = time.monotonic()
        if now_s - self._flushed_s >= _FLUSH_EVERY_S:
            self._flushed_s = now_s
            self._file.flush()

    def close(self) -> None:
        """Bring to the file what is left."""
        self._file.close()


def event_files(directory: Path) -> list[Path]:
    """Return the files of a run's event log that exist, the newest first."""
    paths = [_path(directory, number) for number in range(NUM_KEPT)]
    return [path for path in paths if path.is_file()]


def _make_room(directory: Path) -> None:
    """Rename each file to the next number; the oldest is replaced."""
    for number in reversed(range(NUM_KEPT - 1)):
        path = _path(directory, number)
        if path.is_file():
            path.replace(_path(directory, number + 1))


def _path(directory: Path, number: int) -> Path:
    """Return the path of the file that `number` others have followed."""
    newest = directory / EVENTS
    return newest.with_suffix(f".{number}{newest.suffix}") if number else newest
