"""What a run that was cut short goes on from: found, checked, published and dropped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from realrl.api.messages import File, Recovery
from realrl.base.files import checksum, write_aside, write_atomically
from realrl.runtime.checkpoints import RECOVERIES, publish
from realrl.runtime.recorder import METRICS, RECORDS

_MANIFEST = "manifest.json"
_CHECKED_AT_ONCE = 8
"""Files, each in a thread."""


class _Manifest(msgspec.Struct):
    """Written last: whatever is not as it says is broken."""

    step: int
    files: list[File]


class Past(NamedTuple):
    """What an earlier run did, and wrote down."""

    steps: int = 0
    """Training steps, or batches of a pass."""
    rows: int = 0
    """Of a pass."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """A line for each step and evaluation."""


def publish_recovery(partial: Path, step: int, files: Sequence[File], keep: int) -> Path:
    """Every worker has written its part: it takes its name, and all but the `keep` newest are dropped."""
    manifest = _Manifest(step, sorted(files, key=lambda file: file.path))
    write_atomically(partial / _MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    final = publish(partial)
    for _, directory in _recoveries(final.parent.parent)[keep:]:
        shutil.rmtree(directory)
    return final


def drop_recoveries(directory: Path) -> None:
    """A run that has ended needs none."""
    shutil.rmtree(directory / RECOVERIES, ignore_errors=True)


def has_recoveries(directory: Path) -> bool:
    """Whether a training left something to go on from, whole or not."""
    return bool(_recoveries(directory))


def newest_recovery(directory: Path) -> tuple[Recovery | None, list[str]]:
    """The newest of a run's that is whole, and a line for each newer one, which is dropped."""
    notes = []
    for step, recovery in _recoveries(directory):
        fault = _fault(recovery, step)
        if fault is None:
            return Recovery(step=step, directory=str(recovery)), notes
        notes.append(f"{recovery} is broken and dropped: {fault}")
        shutil.rmtree(recovery)
    return None, notes


def _recoveries(directory: Path) -> list[tuple[int, Path]]:
    """Steps and folders, the newest first."""
    found = (directory / RECOVERIES).glob("step-*")
    return sorted(((int(path.name.partition("-")[2]), path) for path in found), reverse=True)


def _fault(directory: Path, step: int) -> str | None:
    """What about it is not as it was written."""
    try:
        manifest = msgspec.json.decode((directory / _MANIFEST).read_bytes(), type=_Manifest)
    except (FileNotFoundError, ValueError) as error:
        return f"{_MANIFEST}: {error}"
    if manifest.step != step:
        return f"{_MANIFEST} is of step {manifest.step}"
    with ThreadPoolExecutor(_CHECKED_AT_ONCE) as threads:
        faults = threads.map(lambda file: _fault_of(directory / file.path, file), manifest.files)
        return next(filter(None, faults), None)


def _fault_of(path: Path, expected: File) -> str | None:
    if not path.is_file():
        return f"{expected.path} is missing"
    if (num_bytes := path.stat().st_size) != expected.num_bytes:
        return f"{expected.path} has {num_bytes} bytes, not {expected.num_bytes}"
    return None if checksum(path) == expected.checksum else f"{expected.path} has another checksum"


def cut_records(directory: Path, step: int) -> Past:
    """Drop what was written down of what comes after `step` training steps; returns what stays."""
    _keep_lines(directory / RECORDS["train"], lambda line: _is_before(line, line["evaluating"], step))
    _keep_lines(directory / METRICS, lambda line: _is_before(line, line["kind"] == "eval", step))
    return Past(step, metrics=[json.loads(line) for line in _whole_lines(directory / METRICS)])


def cut_batches(directory: Path, samples_per_row: int) -> Past:
    """Drop what was written down of a pass's last batch, unless all was; returns what stays."""
    records, metrics = directory / RECORDS["pass"], directory / METRICS
    num_there, num_samples, kept = sum(1 for _ in _whole_lines(records)), 0, []
    for line in map(json.loads, _whole_lines(metrics)):
        if num_samples + line["num_sequences"] > num_there:
            break
        num_samples += line["num_sequences"]
        kept.append(line)
    _cut(records, num_samples)
    _cut(metrics, len(kept))
    return Past(len(kept), num_samples // samples_per_row, kept)


def drop_records(directory: Path) -> None:
    """A training that has nothing to go on from begins anew."""
    for name in (METRICS, RECORDS["train"]):
        (directory / name).unlink(missing_ok=True)


def _is_before(line: Mapping[str, Any], evaluating: bool, step: int) -> bool:
    """An evaluation comes before the training step of its number."""
    return line["step"] < step + evaluating


def _keep_lines(path: Path, keeps: Callable[[Mapping[str, Any]], bool]) -> None:
    def write(aside: Path) -> None:
        with aside.open("wb") as new:
            new.writelines(line for line in _whole_lines(path) if keeps(json.loads(line)))

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
