"""What an earlier start of a run did and wrote down: read, checked, and cut to where the run resumes.

    metrics.jsonl      step 0 … step v-1 | step v … the line that a kill cut short
                       kept              | dropped: a run that resumes after step v makes it again

Every line that ended is read before anything is cut. A damaged one is named, and nothing is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from realrl.base.files import write_aside
from realrl.runtime.failure import RunRefused
from realrl.runtime.run_files import METRICS, RECORDS


class Past(NamedTuple):
    """What an earlier start of the run did, and wrote down."""

    steps: int = 0
    """Training steps, or batches of a pass."""
    rows: int = 0
    """Of a pass."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """A line for each step and evaluation."""


class _Metrics(msgspec.Struct):
    """What every line of metrics has; `realrl.runtime.master.job_report.Outcome` is made of it."""

    step: int
    kind: str
    weights: dict[str, float]
    num_sequences: int
    num_tokens: int
    tokens_per_s: float
    duration_s: float
    phases_s: dict[str, float]

    @property
    def evaluating(self) -> bool:
        return self.kind == "eval"


class _Rollout(msgspec.Struct):
    """What every record of a training has."""

    step: int
    evaluating: bool


class _Generation(msgspec.Struct):
    """What every record of a pass has."""

    row: int
    sample: int


_Line = TypeVar("_Line")


def cut_records(directory: Path, step: int) -> Past:
    """Drop what was written down of what comes after `step` training steps; returns what stays.

    Raises:
        RunRefused: a line is damaged, or one is missing; nothing is changed.
    """
    records, metrics = directory / RECORDS["train"], directory / METRICS
    for _ in _read(records, _Rollout):
        pass
    stays = [line for line in _read(metrics, _Metrics) if _is_before(line, step)]
    _check_steps(metrics, [line.step for line in stays if not line.evaluating], step)
    _keep_lines(records, lambda line: _is_before(msgspec.json.decode(line, type=_Rollout), step))
    _keep_lines(metrics, lambda line: _is_before(msgspec.json.decode(line, type=_Metrics), step))
    return Past(step, metrics=list(map(json.loads, _whole_lines(metrics))))


def cut_batches(directory: Path, samples_per_row: int) -> Past:
    """Drop what was written down of a pass's last batch, unless all was; returns what stays.

    Raises:
        RunRefused: a line is damaged, or one is missing; nothing is changed.
    """
    records, metrics = directory / RECORDS["pass"], directory / METRICS
    num_there = _check_generations(records, samples_per_row)
    if num_there and not metrics.is_file():
        raise _damaged(f"{metrics} is missing, and {records} has {num_there} lines")
    num_samples, num_batches = 0, 0
    for line in list(_read(metrics, _Metrics)):
        if num_samples + line.num_sequences > num_there:
            break
        _check_steps(metrics, [line.step], num_batches + 1, first=num_batches)
        num_samples += line.num_sequences
        num_batches += 1
    _cut(records, num_samples)
    _cut(metrics, num_batches)
    kept = list(map(json.loads, _whole_lines(metrics)))
    return Past(num_batches, num_samples // samples_per_row, kept)


def past_rollouts(directory: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Each training step that stays, and its records."""
    records = map(msgspec.json.decode, _whole_lines(directory / RECORDS["train"]))
    for (step, evaluating), of_job in groupby(records, key=itemgetter("step", "evaluating")):
        if not evaluating:
            yield step, list(of_job)


def drop_records(directory: Path) -> None:
    """Delete the records of a training that begins again from its first step."""
    for name in (METRICS, RECORDS["train"]):
        (directory / name).unlink(missing_ok=True)


def _check_steps(path: Path, found: Sequence[int], stop: int, *, first: int = 0) -> None:
    """Each step before `stop` has one line, in order."""
    for expected, step in zip(range(first, stop), [*found, None]):
        if step != expected:
            got = "the next is of another" if step is not None else "it ends before"
            raise _damaged(f"{path} has no line of step {expected} where it should be: {got}")
    if len(found) > stop - first:
        raise _damaged(f"{path} has more than one line of step {found[stop - first]}")


def _check_generations(path: Path, samples_per_row: int) -> int:
    """How many records a pass wrote; they are of its rows and samples in order."""
    number = 0
    for number, line in enumerate(_read(path, _Generation), 1):
        expected = divmod(number - 1, samples_per_row)
        if (line.row, line.sample) != expected:
            row, sample = expected
            got = f"row {line.row}, sample {line.sample}"
            raise _damaged(f"{path}:{number}: expected the answer to row {row}, sample {sample}, got {got}")
    return number


def _read(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    """Each whole line of a file."""
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            line.decode()  # msgspec takes no look at the encoding of texts that are not asked for
            yield msgspec.json.decode(line, type=kind)
        except (ValueError, RecursionError) as error:
            what = f"{path}:{number}: expected a line that realrl wrote, got another ({error})"
            raise _damaged(what) from None


def _damaged(what: str) -> RunRefused:
    return RunRefused(
        f"recover: {what}; repair it or put a whole copy there (if another version of realrl wrote it, resume"
        " with that one), or set recover=off to begin afresh; no record was changed"
    )


def _is_before(line: _Metrics | _Rollout, step: int) -> bool:
    """An evaluation comes before the training step of its number."""
    return line.step < step + line.evaluating


def _keep_lines(path: Path, keeps: Callable[[bytes], bool]) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as new:
            new.writelines(line for line in _whole_lines(path) if keeps(line))

    write_aside(path, write)


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Those that were written to their end."""
    if path.is_file():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _cut(path: Path, num_lines: int) -> None:
    """Drop all lines but the first ones."""
    if path.is_file():
        end = sum(map(len, islice(_whole_lines(path), num_lines)))
        os.truncate(path, end)
