"""A run's directory: fresh, kept, and where a link says."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from realrl.runtime.directory import fresh_directory, refused_writes
from realrl.runtime.failure import RunFailed, RunRefused


def test_an_earlier_run_is_kept(tmp_path):
    """Its directory gets a number, and the new one is empty."""
    trial = tmp_path / "trial"
    for run in range(3):
        moved = fresh_directory(trial)
        assert moved == (tmp_path / f"trial.{run}" if run else None)
        assert [p.name for p in trial.iterdir()] == ["logs"]
        (trial / "which").write_text(str(run))
    assert [(tmp_path / f"trial.{i}" / "which").read_text() for i in (1, 2)] == ["0", "1"]


def test_a_link_is_followed_and_stays(tmp_path):
    """The run lands where it points, an earlier one stays on that disk; an empty one is used as it is."""
    disk, trial = tmp_path / "disk", tmp_path / "runs" / "trial"
    (disk / "big").mkdir(parents=True)
    trial.parent.mkdir()
    trial.symlink_to(disk / "big")
    inode = (disk / "big").stat().st_ino
    assert fresh_directory(trial) is None and (disk / "big").stat().st_ino == inode
    (trial / "which").write_text("0")
    assert fresh_directory(trial) == disk / "big.1"
    assert trial.is_symlink() and [p.name for p in (disk / "big").iterdir()] == ["logs"]
    assert (disk / "big.1" / "which").read_text() == "0"
    assert [p.name for p in trial.parent.iterdir()] == ["trial"]


def test_a_link_to_what_is_not_there(tmp_path):
    """A directory is made on a disk that is there; a disk that is not mounted is named."""
    (tmp_path / "disk").mkdir()
    for name in ("disk", "away"):
        (tmp_path / f"to-{name}").symlink_to(tmp_path / name / "big")
    fresh_directory(tmp_path / "to-disk")
    assert (tmp_path / "disk" / "big" / "logs").is_dir()
    with pytest.raises(RunRefused, match="to-away is a link to .*away/big, and there is no .*away; mount"):
        fresh_directory(tmp_path / "to-away")
    assert not (tmp_path / "away").exists()


def test_a_directory_that_cannot_be_renamed_is_named(tmp_path, monkeypatch):
    """As a mount point; what is in it stays."""

    def refuse(path: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "which").write_text("0")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(RunRefused, match="trial has an earlier run, which cannot be renamed .*resource busy"):
        fresh_directory(tmp_path / "trial")
    assert (tmp_path / "trial" / "which").read_text() == "0"


def test_errors_of_files_are_named_and_others_are_not(tmp_path):
    """A socket's lack of a right names no file: it is not the directory's."""
    with pytest.raises(RunFailed, match="cannot read or write /x/y: denied"), refused_writes(tmp_path):
        raise PermissionError(errno.EACCES, "denied", "/x/y")
    with pytest.raises(RunFailed, match=f"cannot read or write {tmp_path}: full"), refused_writes(tmp_path):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(PermissionError), refused_writes(tmp_path):
        raise PermissionError(errno.EPERM, "denied")
