"""Recovery points: found, checked, kept aside, and never deleted because they fail a check."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from realrl.api.messages import File
from realrl.base.files import checksum
from realrl.datasets.digests import RowsDigest
from realrl.runtime.failure import RunRefused
from realrl.runtime.inputs import FileDigest, InputDigests
from realrl.runtime.master import recovery
from realrl.runtime.master.checkpoints import RECOVERIES, partial_directory, tidy
from realrl.runtime.master.recovery import (
    finish_writing,
    has_recoveries,
    keep_newest,
    newest_recovery,
    publish_recovery,
    recorded_inputs,
)

INPUTS = InputDigests(RowsDigest(3, "abc"), None, {"ref": {"w": FileDigest(5, (1, 2, 3), "def")}})


def write(run: Path, step: int) -> tuple[Path, list[File]]:
    """Two files, by two ranks."""
    partial = partial_directory(run / RECOVERIES, f"step-{step}")
    (partial / "m").mkdir(parents=True)
    files = []
    for rank in range(2):
        path = partial / "m" / f"rank-{rank}"
        path.write_text(f"{step} of rank {rank}")
        files.append(File(path=f"m/{path.name}", num_bytes=path.stat().st_size, checksum=checksum(path)))
    return partial, files


def publish(run: Path, step: int, keep: int = 2) -> Path:
    partial, files = write(run, step)
    return publish_recovery(partial, step, files, INPUTS, keep)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / RECOVERIES).iterdir())


def test_the_newest_are_kept(tmp_path):
    """By number, not by name."""
    for step in (8, 9, 10, 11):
        publish(tmp_path, step)
    assert names(tmp_path) == ["step-10", "step-11"]
    found, notes = newest_recovery(tmp_path)
    assert (found.step, Path(found.directory).name, notes) == (11, "step-11", [])


def test_there_may_be_none(tmp_path):
    assert newest_recovery(tmp_path) == (None, []) and not has_recoveries(tmp_path)


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def copied(final: Path) -> None:
    """Give a point the manifest of the one before it."""
    shutil.copy(final.parent / "step-1" / "manifest.json", final / "manifest.json")


def with_manifest(final: Path, **changes: object) -> None:
    path = final / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BREAKS = {
    "m/rank-1 has another checksum": lambda final: flipped(final / "m" / "rank-1"),
    "m/rank-0 has 5 bytes, not 11": lambda final: (final / "m" / "rank-0").write_text("2 of "),
    "m/rank-0 is missing": lambda final: (final / "m" / "rank-0").unlink(),
    "manifest.json: Input data was truncated": lambda final: (final / "manifest.json").write_text("{"),
    "manifest.json: ": lambda final: (final / "manifest.json").write_bytes(b"[" * 100_000),
    "manifest.json is missing": lambda final: (final / "manifest.json").unlink(),
    "manifest.json: it has another checksum": lambda final: with_manifest(final, format=3),
    "manifest.json is of step 1": lambda final: copied(final),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_a_broken_point_is_kept_aside_and_the_one_before_it_is_used(tmp_path, fault):
    """A note names it and what is wrong; all that it holds stays, also when a second one breaks."""
    older, newest = publish(tmp_path, 1), publish(tmp_path, 2)
    BREAKS[fault](newest)
    content = {path.name: path.read_bytes() for path in newest.rglob("*") if path.is_file()}
    found, (note,) = newest_recovery(tmp_path)
    assert found.directory == str(older)
    assert fault in note and str(newest) in note and "kept as broken-step-2" in note
    kept = newest.with_name("broken-step-2")
    assert {path.name: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == content
    assert newest_recovery(tmp_path) == (found, [])
    BREAKS[fault](publish(tmp_path, 2))
    newest_recovery(tmp_path)
    assert names(tmp_path) == ["broken-step-2", "broken-step-2.2", "step-1"]


def test_where_no_point_is_whole_the_run_stops_and_asks(tmp_path):
    """Each is named with its fault, and nothing is renamed or deleted, however often it is started."""
    for step in (1, 2):
        flipped(publish(tmp_path, step) / "m" / f"rank-{step - 1}")
    before = names(tmp_path)
    for _ in range(2):
        with pytest.raises(RunRefused, match="no recovery point in .* is whole") as refusal:
            newest_recovery(tmp_path)
        assert "step-2: m/rank-1 has another checksum; step-1: m/rank-0 has" in str(refusal.value)
        assert "set recover=off to begin afresh" in str(refusal.value)
    assert names(tmp_path) == before


def test_points_that_were_kept_aside_count_where_there_are_no_others(tmp_path):
    """Else a run would begin afresh as if there had been none."""
    flipped(publish(tmp_path, 3) / "m" / "rank-0")
    publish(tmp_path, 1)
    found, _ = newest_recovery(tmp_path)
    os.rename(found.directory, tmp_path / "moved-by-hand")
    assert has_recoveries(tmp_path)
    with pytest.raises(RunRefused, match="broken-step-3: kept aside by an earlier start"):
        newest_recovery(tmp_path)


def test_only_whole_points_count_as_kept(tmp_path):
    """A broken one takes no whole one's place, and stays; no deletion that a kill cut short remains."""
    publish(tmp_path, 1)
    (publish(tmp_path, 2) / "m" / "rank-0").unlink()
    (publish(tmp_path, 3) / "manifest.json").write_text("{")
    publish(tmp_path, 4)
    assert names(tmp_path) == ["step-1", "step-2", "step-3", "step-4"]
    publish(tmp_path, 5)
    assert names(tmp_path) == ["step-2", "step-3", "step-4", "step-5"]
    keep_newest(tmp_path, 1)
    assert names(tmp_path) == ["step-2", "step-3", "step-5"]
    os.rename(tmp_path / RECOVERIES / "step-2", tmp_path / RECOVERIES / ".step-2.dropped")
    finish_writing(tmp_path)
    assert names(tmp_path) == ["step-3", "step-5"]


@pytest.mark.parametrize("form", [1, 9])
def test_a_point_of_another_version_is_left_to_that_version(tmp_path, form):
    """It is not broken: no older one is used in its place, and it keeps its name."""
    publish(tmp_path, 1)
    newest = publish(tmp_path, 2)
    content = {"step": 2, "files": "of another form"}
    if form > 1:
        content["format"] = form
        content["checksum"] = recovery._checksum(content)
    (newest / "manifest.json").write_text(json.dumps(content))
    message = f"step-2 is of format {form}, this version of realrl reads format {recovery.FORMAT}"
    with pytest.raises(RunRefused, match=message):
        newest_recovery(tmp_path)
    assert names(tmp_path) == ["step-1", "step-2"]


def test_a_point_that_lacks_only_its_name_gets_it(tmp_path):
    """A kill between the manifest and the rename loses nothing; one without a manifest was not whole."""
    partial, files = write(tmp_path, 7)
    publish_recovery(partial, 7, files, INPUTS, 2).rename(partial)
    write(tmp_path, 8)
    assert has_recoveries(tmp_path)
    finish_writing(tmp_path)
    tidy(tmp_path)
    assert names(tmp_path) == ["step-7"]
    assert newest_recovery(tmp_path)[0].step == 7


def test_a_point_says_what_its_run_read(tmp_path):
    """The newest whose manifest can be read; none where none can."""
    assert recorded_inputs(tmp_path) is None
    publish(tmp_path, 1)
    newest = publish(tmp_path, 2)
    assert recorded_inputs(tmp_path) == INPUTS
    flipped(newest / "manifest.json")
    assert recorded_inputs(tmp_path) == INPUTS
    (tmp_path / RECOVERIES / "step-1" / "manifest.json").unlink()
    assert recorded_inputs(tmp_path) is None
