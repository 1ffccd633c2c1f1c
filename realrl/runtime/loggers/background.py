"""Loggers that cannot hold up a run: each has a thread and a bounded queue, and at the end a deadline.

run ── rows ──▶ queue ──▶ thread ──▶ logger
                  │                     │
                  └─ full: lost         └─ fails: lost; the first time is said, the rest are counted
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
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
"""How long all loggers together may take at the run's end."""
_FOLDER = "loggers"
"""In the run's directory: a file for each logger that holds the id of the run there."""

Say = Callable[[str], None]


class Loggers:
    """All loggers of one attempt at a run. Use it as a context: what ends it by an exception has failed."""

    def __init__(self, loggers: Sequence[BackgroundLogger]) -> None:
        self._loggers = loggers
        self._summary: Mapping[str, Any] | None = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Pass on a line of `metrics.jsonl`; returns at once."""
        for each in self._loggers:
            each.log(row)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """The run is done."""
        self._summary = summary

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        failure = None if error is None else str(error) or kind.__name__
        for each in self._loggers:
            each.finish(End(self._summary, failure))
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
    """Start each logger. `past` is what `metrics.jsonl` holds of the steps before `first_step`."""
    document = flattened({"recipe": recipe, **msgspec.to_builtins(config)})
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
        started.append(BackgroundLogger(name, facts, _missing(name, past, facts), say))
    return Loggers(started)


def _run_id(directory: Path, name: str, *, is_resumed: bool) -> tuple[str, bool]:
    """The id of the run in the logger, and whether the logger has it already."""
    file = directory / _FOLDER / name
    if is_resumed and file.is_file():
        return file.read_text(encoding="utf-8"), True
    run_id = secrets.token_hex(10)
    write_atomically(file, run_id)
    return run_id, False


def _missing(name: str, past: Sequence[Mapping[str, Any]], facts: RunFacts) -> list[Mapping[str, Any]]:
    """The rows of the past that the logger does not have.

    TensorBoard drops all rows from `first_step` on, also the evaluation before it, which does not come again.
    """
    if not facts.continues:
        return list(past)
    return [row for row in past if row["step"] >= facts.first_step] if name == "tensorboard" else []


def scalars_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of `metrics.jsonl`, named as loggers show them: `train/loss`, `phases_s/gen`."""
    scalars = {f"{row['kind']}/{name}": value for name, value in row.items() if isinstance(value, float)}
    return scalars | {f"phases_s/{name}": value for name, value in row["phases_s"].items()}


class BackgroundLogger:
    """One logger behind a queue and a thread."""

    def __init__(self, name: str, facts: RunFacts, past: Iterable[Mapping[str, Any]], say: Say) -> None:
        self._name, self._facts, self._say = name, facts, say
        self._child: ChildLogger | None = None
        self._lock = threading.Lock()
        self._num_rows = self._num_lost = 0
        self._has_complained = False
        self._queue: SimpleQueue[Row | End] = SimpleQueue()
        for row in past:
            self.log(row)
        self._thread = threading.Thread(target=self._work, name=f"logger {name}", daemon=True)
        self._thread.start()

    def log(self, row: Mapping[str, Any]) -> None:
        self._num_rows += 1
        if self._queue.qsize() >= _MOST_WAITING:
            self._lose(f"{_MOST_WAITING} rows wait for it; the run continues")
            return
        self._queue.put(Row(row["step"], scalars_of(row)))

    def finish(self, end: End) -> None:
        """Say how the run ended, once all rows are logged; returns at once."""
        self._queue.put(end)

    def wait(self, deadline_s: float) -> None:
        """Wait for the end; say what was lost."""
        self._thread.join(max(0.0, deadline_s - time.monotonic()))
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
        """Empty the queue but for its end; returns how many rows waited."""
        num_rows = 0
        with suppress(Empty):
            while True:
                num_rows += isinstance(self._queue.get_nowait(), Row)
        # The thread ends by this, should its logger ever let go of it.
        self._queue.put(End(None, None))
        return num_rows

    def _work(self) -> None:
        target = self._guarded(self._open, num_rows=0)
        if target is not None and target.where:
            self._tell(target.where, logging.INFO)
        while not isinstance(message := self._queue.get(), End):
            if target is None:
                self._lose("it did not start")
                continue
            self._guarded(lambda row=message: target.log(row.step, row.scalars))
        if target is not None:
            self._guarded(lambda: target.finish(message.summary, message.failure), num_rows=0)
        if self._child is not None:
            self._child.kill()

    def _open(self) -> Logger:
        if not TOOLS[self._name].has_process:
            return open_logger(self._name, self._facts)
        log = Path(self._facts.directory) / "logs" / f"logger-{self._name}.log"
        self._child = ChildLogger(self._name, log)
        self._child.open(self._facts)
        return self._child

    def _guarded(self, action: Callable[[], Any], num_rows: int = 1) -> Any:
        # Training never fails because a logger does, whatever it raises: the loss is counted and said.
        try:
            return action()
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            self._lose(f"{why}; the run continues", num_rows)
            return None

    def _lose(self, why: str, num_rows: int = 1) -> None:
        with self._lock:
            is_first, self._has_complained = not self._has_complained, True
            self._num_lost += num_rows
        if is_first:
            self._tell(why)

    def _tell(self, what: str, level: int = logging.WARNING) -> None:
        line = f"logger {self._name}: {what}"
        logger.log(level, "%s", line)
        self._say(line)
