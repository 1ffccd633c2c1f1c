"""Recovery points: published, found, checked, and kept.

    RUN/recovery/
        step-10/               all that the run was after 10 training steps
            manifest.json      written last: each file's size and checksum, and digests of what the run reads
            MODEL/rank-0.…     one file a rank
        broken-step-15/        a point that failed a check; it is never used and never deleted
        .step-20.partial/      a point that is being written

A point that fails a check is renamed, and the one before it is used. Where no point is whole, the run stops
and asks: whoever started it may have a copy, or know how to repair one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from realrl.api.messages import File, Recovery
from realrl.base.files import checksum, sync, write_atomically
from realrl.runtime.failure import RunRefused
from realrl.runtime.inputs import InputDigests
from realrl.runtime.master.checkpoints import RECOVERIES, publish

FORMAT = 2
"""The version of the format of a point's files. A point of another version needs the realrl that wrote it."""

_MANIFEST = "manifest.json"
_OWN = "checksum"
"""The manifest's key of its own checksum, so that no flipped bit in it is taken for another version."""
_BROKEN = "broken-"
_CHECKSUM_BYTES = 16
_CHECKED_AT_ONCE = 8
"""Files, each in a thread."""


class _Manifest(msgspec.Struct):
    """Written last, together with its own checksum: whatever differs from it is broken."""

    format: int
    step: int
    files: list[File]
    inputs: InputDigests


class _Point(NamedTuple):
    """A folder that has the name of a recovery point."""

    step: int
    path: Path


def publish_recovery(
    partial: Path, step: int, files: Sequence[File], inputs: InputDigests, keep: int
) -> Path:
    """Give a point its name once every worker has written its part; keep the `keep` newest whole ones."""
    in_order = sorted(files, key=lambda file: file.path)
    manifest = msgspec.to_builtins(_Manifest(FORMAT, step, in_order, inputs))
    manifest[_OWN] = _checksum(manifest)
    text = msgspec.json.format(msgspec.json.encode(manifest))
    write_atomically(partial / _MANIFEST, text)

    final = publish(partial)
    run_directory = final.parent.parent
    keep_newest(run_directory, keep)
    return final


def keep_newest(directory: Path, keep: int) -> None:
    """Delete a run's recovery points except the `keep` newest whole ones; broken ones stay, and do not count.

    Whether a point is whole is judged by its files' sizes here: reading them all would take too long.
    """
    whole = [point for point in _points(directory) if _fault(point, reads_files=False) is None]
    for point in whole[keep:]:
        # A kill amid the deletion must leave nothing that looks like a broken point.
        dropped = point.path.with_name(f".{point.path.name}.dropped")
        os.rename(point.path, dropped)
        shutil.rmtree(dropped)


def finish_writing(directory: Path) -> None:
    """Complete what a kill cut short: a point that had its manifest is given its name."""
    folder = directory / RECOVERIES
    for dropped in folder.glob(".step-*.dropped"):
        shutil.rmtree(dropped)
    for partial in _whole_partials(folder):
        final = folder / partial.name.removeprefix(".").removesuffix(".partial")
        if not final.exists():
            os.rename(partial, final)
            sync(folder)


def has_recoveries(directory: Path) -> bool:
    """Return whether a training left anything to resume from, whole or not."""
    folder = directory / RECOVERIES
    if _points(directory) or _broken(folder):
        return True
    replaced = folder.glob(".step-*.old")
    return any(_whole_partials(folder)) or any(replaced)


def newest_step(directory: Path) -> int | None:
    """Return the step of the newest recovery point, checked or not; None if there is none."""
    steps = [point.step for point in _points(directory)]
    return max(steps, default=None)


def newest_recovery(directory: Path) -> tuple[Recovery | None, list[str]]:
    """Return the newest whole recovery point of a run, and a line for each newer one, which is kept aside.

    The point is None if there are none, whole or not.

    Raises:
        RunRefused: there are points, and none of them is whole; or another version of realrl wrote one.
    """
    faults: dict[Path, str] = {}
    for point in _points(directory):
        fault = _fault(point)
        if fault is None:
            notes = [_keep_aside(path, why) for path, why in faults.items()]
            return Recovery(step=point.step, directory=str(point.path)), notes
        faults[point.path] = fault
    faults |= dict.fromkeys(_broken(directory / RECOVERIES), "kept aside by an earlier start")
    if faults:
        raise _none_is_whole(directory, faults)
    return None, []


def recorded_inputs(directory: Path) -> InputDigests | None:
    """Return what a training read, from its newest recovery point with a sound manifest; None without one.

    Raises:
        RunRefused: another version of realrl wrote it.
    """
    for point in _points(directory):
        try:
            return _read_manifest(point).inputs
        except RunRefused:
            raise
        except (OSError, ValueError, RecursionError):
            continue
    return None


def _none_is_whole(directory: Path, faults: dict[Path, str]) -> RunRefused:
    found = "; ".join(f"{path.name}: {why}" for path, why in faults.items())
    return RunRefused(
        f"recover: no recovery point in {directory / RECOVERIES} is whole ({found}); put a whole copy there,"
        f" named step-N, or set recover=off to begin afresh, which keeps {directory} under another name"
    )


def _keep_aside(path: Path, why: str) -> str:
    """Rename a broken point; return a line that says so."""
    aside = path.with_name(_BROKEN + path.name)
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{_BROKEN}{path.name}.{number}")
    os.rename(path, aside)
    return f"{path} is broken and kept as {aside.name}: {why}"


def _points(directory: Path) -> list[_Point]:
    """Return all folders that have the name of a point, the newest first."""
    found = []
    for path in (directory / RECOVERIES).glob("step-*"):
        if match := re.fullmatch(r"step-(\d+)", path.name):
            found.append(_Point(int(match[1]), path))
    return sorted(found, reverse=True)


def _broken(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{_BROKEN}step-*"))


def _whole_partials(folder: Path) -> Iterator[Path]:
    """Return the points that were written to their end, and lack only their name."""
    return (path for path in folder.glob(".step-*.partial") if (path / _MANIFEST).is_file())


def _fault(point: _Point, *, reads_files: bool = True) -> str | None:
    """Return how the point differs from its manifest; None if it does not.

    Raises:
        RunRefused: another version of realrl wrote it.
    """
    try:
        manifest = _read_manifest(point)
    except RunRefused:
        raise
    except FileNotFoundError:
        return f"{_MANIFEST} is missing"
    except (OSError, ValueError, RecursionError) as error:
        return f"{_MANIFEST}: {error}"
    if manifest.step != point.step:
        return f"{_MANIFEST} is of step {manifest.step}"
    fault_of = _fault_of if reads_files else _fault_of_size
    with ThreadPoolExecutor(_CHECKED_AT_ONCE) as threads:
        faults = threads.map(lambda file: fault_of(point.path / file.path, file), manifest.files)
        return next(filter(None, faults), None)


def _read_manifest(point: _Point) -> _Manifest:
    """Return the manifest of a point.

    Raises:
        RunRefused: another version of realrl wrote it.
        ValueError: it is damaged.
    """
    data = (point.path / _MANIFEST).read_bytes()
    content = msgspec.json.decode(data, type=dict[str, Any])
    version = content.get("format")
    if _OWN not in content and "format" not in content:
        raise _of_another_version(point, 1)  # the first had neither
    own_checksum = content.pop(_OWN, None)
    if own_checksum != _checksum(content):
        raise ValueError("it has another checksum")
    if version != FORMAT:
        raise _of_another_version(point, version)
    return msgspec.convert(content, _Manifest)


def _checksum(manifest: dict[str, Any]) -> str:
    """Return the checksum of a manifest's content, in whatever order its keys are."""
    data = msgspec.json.encode(manifest, order="sorted")
    return hashlib.blake2b(data, digest_size=_CHECKSUM_BYTES).hexdigest()


def _of_another_version(point: _Point, form: Any) -> RunRefused:
    return RunRefused(
        f"recover: {point.path} is of format {form}, this version of realrl reads format {FORMAT}; resume"
        " with the version that wrote it, or set recover=off to begin afresh"
    )


def _fault_of(path: Path, expected: File) -> str | None:
    """Return how a file differs from what is expected of it; None if it does not."""
    if fault := _fault_of_size(path, expected):
        return fault
    try:
        found = checksum(path)
    except OSError as error:
        return f"{expected.path} cannot be read: {error.strerror}"
    return None if found == expected.checksum else f"{expected.path} has another checksum"


def _fault_of_size(path: Path, expected: File) -> str | None:
    if not path.is_file():
        return f"{expected.path} is missing"
    num_bytes = path.stat().st_size
    if num_bytes != expected.num_bytes:
        return f"{expected.path} has {num_bytes} bytes, not {expected.num_bytes}"
    return None
