"""Loggers that cannot delay a run: each has a thread and a bounded queue, and at the end a deadline.

run ── rows ──▶ queue ──▶ thread ──▶ logger
                  │                     │
                  └─ full: lost         └─ fails: lost; the first loss is reported, all are counted
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

from realrl.api.config import RunConfig
from realrl.base.files import write_atomically
from realrl.runtime.loggers.interface import TOOLS, Logger, RunFacts, flattened, open_logger
from realrl.runtime.loggers.logger_process import ChildLogger, End, Row

logger = logging.getLogger(__name__)

_MOST_WAITING = 10_000
"""Rows that wait for a slow logger; further ones are lost. A row is about a kilobyte."""
_END_S = 15.0
"""Seconds that all loggers together may take at the run's end."""
_FOLDER = "loggers"
"""A folder in the run's directory: its file for each logger holds the id of the run there."""

Say = Callable[[str], None]
"""Shows a line to the user."""


class Loggers:
    """All loggers of one attempt at a run: a context, whose end by an exception marks the run as failed."""

    def __init__(self, loggers: Sequence[BackgroundLogger]) -> None:
        self._loggers = loggers
        self._summary: Mapping[str, Any] | None = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Pass a line of `metrics.jsonl` on; return at once."""
        for each in self._loggers:
            each.log(row)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Take the summary of a run that is done, for the end of the context."""
        self._summary = summary

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        failure = None if error is None else str(error) or type(error).__name__
        end = End(self._summary, failure)
        for each in self._loggers:
            each.finish(end)
        deadline_s = time.monotonic() + _END_S
        for each in self._loggers:
            each.wait(deadline_s)


def start_loggers(
    names: Iterable[str],
    config: RunConfig,
    recipe: str,
    directory: Path,
    *,
    past: Sequence[Mapping[str, Any]],
    first_step: int,
    say: Say,
) -> Loggers:
    """Start each logger. `past` is the part of `metrics.jsonl` before `first_step`."""
    settings = msgspec.to_builtins(config)
    document = flattened({"recipe": recipe, **settings})
    started = []
    for name in names:
        run_id, continues = _run_id(directory, name, is_resumed=bool(past))
        facts = RunFacts(
            experiment=config.experiment,
            trial=config.trial,
            directory=str(directory),
            config=document,
            run_id=run_id,
            continues=continues,
            first_step=first_step,
        )
        missing = _missing(name, past, facts)
        started.append(BackgroundLogger(name, facts, missing, say))
    return Loggers(started)


def _run_id(directory: Path, name: str, *, is_resumed: bool) -> tuple[str, bool]:
    """Return the id of the run in the logger, and whether the logger has the run already."""
    file = directory / _FOLDER / name
    if is_resumed and file.is_file():
        return file.read_text(encoding="utf-8"), True
    run_id = secrets.token_hex(10)
    write_atomically(file, run_id)
    return run_id, False


def _missing(name: str, past: Sequence[Mapping[str, Any]], facts: RunFacts) -> list[Mapping[str, Any]]:
    """Return the rows of the past that the logger does not have.

    TensorBoard drops all rows from `first_step` on, including the evaluation before it, which is not
    repeated.
    """
    if not facts.continues:
        return list(past)
    if name != "tensorboard":
        return []
    return [row for row in past if row["step"] >= facts.first_step]


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of `metrics.jsonl`, named as loggers show them.

    Names are such as `train/loss` and `phases_s/gen`.
    """
    scalars: dict[str, float] = {}
    kind = row["kind"]
    if "set" in row:
        kind = f"{kind}/{row['set']}"
    for name, value in row.items():
        if isinstance(value, float):
            scalars[f"{kind}/{name}"] = value
    for name, seconds in row["phases_s"].items():
        scalars[f"phases_s/{name}"] = seconds
    return scalars


class BackgroundLogger:
    """One logger behind a queue and a thread."""

    def __init__(self, name: str, facts: RunFacts, past: Iterable[Mapping[str, Any]], say: Say) -> None:
        self._name = name
        self._facts = facts
        self._say = say
        self._child: ChildLogger | None = None
        self._lock = threading.Lock()
        """Guards the next two, which the run's thread and the logger's change."""
        self._num_lost = 0
        self._has_complained = False
        self._num_rows = 0
        self._queue: SimpleQueue[Row | End] = SimpleQueue()
        for row in past:
            self.log(row)
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Enqueue a line of `metrics.jsonl`; it is lost if too many wait."""
        self._num_rows += 1
        if self._queue.qsize() >= _MOST_WAITING:
            self._lose(f"{_MOST_WAITING} rows wait for it; the run continues")
            return
        self._queue.put(Row(row["step"], scalars_of(row)))

    def finish(self, end: End) -> None:
        """Enqueue how the run ended; return at once."""
        self._queue.put(end)

    def wait(self, deadline_s: float) -> None:
        """Wait until the logger has ended, or end it at the deadline; report what was lost."""
        left_s = deadline_s - time.monotonic()
        self._thread.join(max(0.0, left_s))
        if self._thread.is_alive():
            num_waiting = self._drop_waiting()
            self._lose(f"it was not done {_END_S:g} s after the run and is ended", max(1, num_waiting))
            if self._child is not None:
                self._child.kill()
        if self._num_lost:
            self._tell(
                f"{self._num_lost} of {self._num_rows} rows are lost to it; metrics.jsonl has them all"
            )

    def _drop_waiting(self) -> int:
        """Empty the queue, and enqueue an end; return how many rows waited."""
        num_rows = 0
        with suppress(Empty):
            while True:
                message = self._queue.get_nowait()
                if isinstance(message, Row):
                    num_rows += 1
        # The thread ends by this if its logger ever returns.
        self._queue.put(End(None, None))
        return num_rows

    def _work(self) -> None:
        """Open the logger, and log rows until the run ends. This is the thread."""
        target: Logger | None = None
        with self._counting_loss(num_rows=0):
            target = self._open()
        if target is not None and target.where:
            self._tell(target.where, logging.INFO)
        while not isinstance(message := self._queue.get(), End):
            if target is None:
                self._lose("it did not start")
                continue
            with self._counting_loss(num_rows=1):
                target.log(message.step, message.numbers)
        if target is not None:
            with self._counting_loss(num_rows=0):
                target.finish(message.summary, message.failure)
        if self._child is not None:
            self._child.kill()

    def _open(self) -> Logger:
        """Open the logger, in a process of its own if its tool needs one."""
        if not TOOLS[self._name].has_process:
            return open_logger(self._name, self._facts)
        log = Path(self._facts.directory) / "logs" / f"logger-{self._name}.log"
        self._child = ChildLogger(self._name, log)
        self._child.open(self._facts)
        return self._child

    @contextmanager
    def _counting_loss(self, num_rows: int) -> Iterator[None]:
        """Count `num_rows` as lost if the logger fails: a training never fails because a logger does."""
        try:
            yield
        except Exception as error:  # whatever a tool raises
            why = " ".join(str(error).split()) or type(error).__name__
            self._lose(f"{why}; the run continues", num_rows)

    def _lose(self, why: str, num_rows: int = 1) -> None:
        """Count rows as lost; report the first loss."""
        with self._lock:
            is_first = not self._has_complained
            self._has_complained = True
            self._num_lost += num_rows
        if is_first:
            self._tell(why)

    def _tell(self, what: str, level: int = logging.WARNING) -> None:
        """Report something about this logger, in the log and to the user."""
        line = f"logger {self._name}: {what}"
        logger.log(level, "%s", line)
        self._say(line)
