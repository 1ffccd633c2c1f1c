"""The records of earlier starts of a run: read, checked, and cut to where the run resumes.

    metrics.jsonl      step 0 … step v-1 | step v … the line that a kill cut short
                       kept              | dropped: a run that resumes before step v repeats it

Every whole line is read before anything is cut. If one is damaged, it is named, and nothing is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from realrl.base.files import write_aside
from realrl.runtime.failure import RunRefused
from realrl.runtime.run_files import METRICS, RECORDS


class Past(NamedTuple):
    """What earlier starts of the run did and recorded."""

    steps: int = 0
    """Training steps, or batches of a pass."""
    rows: int = 0
    """Rows of a pass."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """A line for each step and evaluation."""


class _Metrics(msgspec.Struct):
    """The keys of every line of metrics; `realrl.runtime.master.job_report.Outcome` is made of them."""

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
        """Whether the line is of an evaluation."""
        return self.kind == "eval"


class _Rollout(msgspec.Struct):
    """The keys of every record of a training."""

    step: int
    evaluating: bool


class _Generation(msgspec.Struct):
    """The keys of every record of a pass."""

    row: int
    sample: int


_Line = TypeVar("_Line")


def cut_records(directory: Path, step: int) -> Past:
    """Drop the records of what comes after `step` training steps; return what stays.

    Raises:
        RunRefused: a line is damaged, or one is missing; nothing is changed.
    """
    records = directory / RECORDS["train"]
    metrics = directory / METRICS
    for _ in _read(records, _Rollout):  # to find damaged lines
        pass
    steps: list[int] = []
    for line in _read(metrics, _Metrics):
        if not line.evaluating and _is_before(line, step):
            steps.append(line.step)
    _check_steps(metrics, steps, step)

    _keep_lines(records, _Rollout, step)
    _keep_lines(metrics, _Metrics, step)
    return Past(step, metrics=_parsed(metrics))


def cut_batches(directory: Path, samples_per_row: int) -> Past:
    """Drop the records of a pass's last batch unless they are complete; return what stays.

    Raises:
        RunRefused: a line is damaged, or one is missing; nothing is changed.
    """
    records = directory / RECORDS["pass"]
    metrics = directory / METRICS
    num_recorded = _check_generations(records, samples_per_row)
    if num_recorded and not metrics.is_file():
        raise _damaged(f"{metrics} is missing, and {records} has {num_recorded} lines")

    num_samples = 0
    num_batches = 0
    lines = list(_read(metrics, _Metrics))  # all of them, to find damaged ones
    for line in lines:
        if num_samples + line.num_sequences > num_recorded:
            break
        _check_steps(metrics, [line.step], num_batches + 1, first=num_batches)
        num_samples += line.num_sequences
        num_batches += 1
    _cut(records, num_samples)
    _cut(metrics, num_batches)
    num_rows = num_samples // samples_per_row
    return Past(num_batches, num_rows, _parsed(metrics))


def past_rollouts(directory: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield each training step that stays, and its records."""
    lines = _whole_lines(directory / RECORDS["train"])
    records = map(msgspec.json.decode, lines)
    for (step, evaluating), group in groupby(records, key=itemgetter("step", "evaluating")):
        if not evaluating:
            yield step, list(group)


def drop_records(directory: Path) -> None:
    """Delete the records of a training that restarts from its first step."""
    for name in (METRICS, RECORDS["train"]):
        (directory / name).unlink(missing_ok=True)


def _check_steps(path: Path, found: Sequence[int], stop: int, *, first: int = 0) -> None:
    """Check that each step before `stop` has one line, in order.

    Raises:
        RunRefused: a line is missing, or there are too many.
    """
    for expected, step in zip(range(first, stop), [*found, None]):
        if step != expected:
            got = "the next is of another" if step is not None else "it ends before"
            raise _damaged(f"{path} has no line of step {expected} where it should be: {got}")
    if len(found) > stop - first:
        raise _damaged(f"{path} has more than one line of step {found[stop - first]}")


def _check_generations(path: Path, samples_per_row: int) -> int:
    """Check that the records of a pass are of its rows and samples in order; return their number.

    Raises:
        RunRefused: they are not.
    """
    number = 0
    for number, line in enumerate(_read(path, _Generation), start=1):
        row, sample = divmod(number - 1, samples_per_row)
        if line.row == row and line.sample == sample:
            continue
        expected = f"the answer to row {row}, sample {sample}"
        got = f"row {line.row}, sample {line.sample}"
        raise _damaged(f"{path}:{number}: expected {expected}, got {got}")
    return number


def _read(path: Path, kind: type[_Line]) -> Iterator[_Line]:
    """Yield each whole line of a file.

    Raises:
        RunRefused: a line is damaged.
    """
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            line.decode()  # msgspec does not check the encoding of texts that are not asked for
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
    """Whether a line comes before training step `step`."""
    # An evaluation comes before the training step of its number.
    return line.step <= step if line.evaluating else line.step < step


def _keep_lines(path: Path, kind: type[_Metrics] | type[_Rollout], step: int) -> None:
    """Rewrite a file with only the lines that come before training step `step`."""

    def write(aside: Path) -> None:
        with aside.open("wb") as new:
            for line in _whole_lines(path):
                if _is_before(msgspec.json.decode(line, type=kind), step):
                    new.write(line)

    write_aside(path, write)


def _whole_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines that were written to their end; none if there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _parsed(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a file."""
    return [json.loads(line) for line in _whole_lines(path)]


def _cut(path: Path, num_lines: int) -> None:
    """Drop all lines except the first ones."""
    if not path.is_file():
        return
    kept = islice(_whole_lines(path), num_lines)
    num_bytes = sum(map(len, kept))
    os.truncate(path, num_bytes)
