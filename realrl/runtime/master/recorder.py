"""Records a run in its directory: metrics, rollouts, a trace, the event log and a summary."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from realrl.api.config import RunConfig
from realrl.api.messages import Done
from realrl.base.files import write_atomically
from realrl.program.events import Event
from realrl.program.instructions import Instruction, RunCall
from realrl.program.scheduler import Emitted
from realrl.program.scheduler_state import SchedulerState
from realrl.runtime.loggers.background import Loggers
from realrl.runtime.master.event_files import LARGEST_BYTES, EventFiles
from realrl.runtime.master.job_report import EVAL, Outcome
from realrl.runtime.run_files import METRICS, RECORDS, SUMMARY, TRACE

MICROSECONDS = 1e6


def run_directory(config: RunConfig) -> Path:
    """Return the directory of a run."""
    return Path(config.runs_dir) / config.experiment / config.trial


class Recorder:
    """Writes the files of one run, new or resumed. Close it, or use it as a context."""

    def __init__(self, directory: Path, num_workers: int, kind: str, loggers: Loggers | None = None) -> None:
        self.directory = directory
        self._kind = kind
        self._loggers = loggers or Loggers(())
        metrics = directory / METRICS
        self._metrics = metrics.open("a", encoding="utf-8")
        records = directory / RECORDS[kind]
        self._records = records.open("a", encoding="utf-8")
        self._trace = Trace(directory / TRACE, num_workers)
        self._events: EventFiles | None = None

    def record_instruction(self, rank: int, instruction: Instruction, done: Done) -> None:
        """Add one rank's part of an instruction to the timeline."""
        self._trace.add(rank, instruction, done)

    def record_job(self, outcome: Outcome, records: Sequence[dict]) -> None:
        """Write a job's records, then one row of metrics: a job with a row of metrics is whole."""
        of_job: dict[str, Any] = {}
        if self._kind == "train":  # which has a row of the dataset in several steps
            of_job = {"step": outcome.step, "evaluating": outcome.evaluating, **outcome.shown_set}
        for record in records:
            line = _json({**of_job, **record})
            self._records.write(f"{line}\n")
        self._records.flush()

        row = {
            "step": outcome.step,
            "kind": EVAL if outcome.evaluating else self._kind,
            **outcome.shown_set,
            **outcome.metrics,
            "weights": outcome.weights,
            "num_sequences": outcome.num_sequences,
            "num_tokens": outcome.num_tokens,
            "tokens_per_s": outcome.tokens_per_s,
            "duration_s": outcome.duration_s,
            "phases_s": outcome.phases_s,
        }
        self._metrics.write(f"{_json(row)}\n")
        self._metrics.flush()
        self._loggers.log(row)

    def begin_events(self, state: Callable[[], SchedulerState]) -> None:
        """Begin the event log of an attempt; `state` returns the scheduler's state as it is now."""
        self._events = EventFiles(self.directory, state, LARGEST_BYTES)

    def record_event(self, event: Event, emitted: Sequence[Emitted]) -> None:
        """Add to the event log what the scheduler was told, and what it sent."""
        if self._events:
            self._events.record(event, emitted)

    def flush_events(self) -> None:
        """Write what the event log has buffered, at most twice a second."""
        if self._events:
            self._events.flush()

    def sync(self) -> None:
        """Return once metrics and records are on disk, as far as they were written until now."""
        for file in (self._metrics, self._records):
            os.fsync(file.fileno())

    def record_summary(self, summary: dict[str, Any]) -> None:
        """Write the summary of a run that is done."""
        finite = _finite(summary)
        text = json.dumps(finite, indent=2)
        write_atomically(self.directory / SUMMARY, f"{text}\n")
        self._loggers.summarise(finite)

    def close(self) -> None:
        """Close every file, even if a full disk keeps some from being written."""
        with ExitStack() as files:
            for file in (self._metrics, self._records, self._trace, self._events):
                if file:
                    files.callback(file.close)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class Trace:
    """A timeline with one row a worker, for `chrome://tracing` or ui.perfetto.dev.

    Source: Trace Event Format, docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    """

    def __init__(self, path: Path, num_workers: int) -> None:
        """Continue the timeline in `path`, or begin it."""
        is_begun = path.is_file()
        self._file = path.open("r+b" if is_begun else "wb")
        if is_begun:
            self._cut()
        if self._file.tell():
            return
        self._file.write(b"[\n")
        for rank in range(num_workers):
            self._write(name="thread_name", ph="M", pid=0, tid=rank, args={"name": f"worker {rank}"})

    def _cut(self) -> None:
        """Cut the file after the last event that was written whole."""
        end = 0
        while (line := self._file.readline()) and line.endswith((b"[\n", b",\n")):
            end = self._file.tell()
        self._file.seek(end)
        self._file.truncate()

    def add(self, rank: int, instruction: Instruction, done: Done) -> None:
        """Add one rank's part of an instruction."""
        kind = type(instruction).__name__
        name = f"{kind.lower()} {instruction.call}".rstrip()
        if isinstance(instruction, RunCall):
            name = instruction.call
        self._write(
            name=name,
            cat=kind,
            ph="X",
            pid=0,
            tid=rank,
            ts=done.started_s * MICROSECONDS,
            dur=(done.ended_s - done.started_s) * MICROSECONDS,
            args={"step": instruction.step, "evaluating": instruction.evaluating, "seq": instruction.seq},
        )

    def close(self) -> None:
        """End the list of events."""
        self._file.write(b'{"name": "end", "ph": "M", "pid": 0}\n]\n')
        self._file.close()

    def _write(self, **event: Any) -> None:
        self._file.write(msgspec.json.encode(event) + b",\n")


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False)


def _finite(value: Any) -> Any:
    """Return a value of JSON, in which infinities and NaN are null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
