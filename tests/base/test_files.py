"""Files and directories appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import stat

import pytest

from realrl.base import files
from realrl.base.files import locked, replace_directory, write_aside, write_atomically


def tree(directory):
    """Relative path to content, of every file."""
    return {str(p.relative_to(directory)): p.read_text() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("content", ["text ü", b"\x00\xff", ""])
def test_writes_and_replaces(tmp_path, content):
    """The content arrives as it is, in a new folder and over an old file."""
    path = tmp_path / "new" / "file"
    write_atomically(path, "something longer than the rest")
    write_atomically(path, content)
    expected = content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert os.listdir(path.parent) == ["file"]


@pytest.fixture(params=[0o002, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_modes_follow_the_umask(tmp_path, umask):
    """Also those of a file that its library makes private, and of one that takes another's place."""

    def write_private(path):
        path.unlink()
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    (tmp_path / "replaced").touch(mode=0o600)
    for name in ("replaced", "new"):
        write_atomically(tmp_path / name, "x")
    write_aside(tmp_path / "aside", write_private)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("replaced", "new", "aside"), 0o666 & ~umask)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    """A full disk, say: the old content stays, and nothing lies about."""
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert tree(tmp_path) == {"file": "old"}


def made(directory, **contents):
    directory.mkdir()
    for name, content in contents.items():
        (directory / name).write_text(content)
    return directory


def test_an_interrupt_after_the_rename_stays_one(tmp_path, monkeypatch):
    """The file has its name by then, so that there is nothing to clear up."""

    def rename_and_interrupt(old, new):
        replace(old, new)
        raise KeyboardInterrupt

    replace = os.replace
    monkeypatch.setattr(os, "replace", rename_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_lock_is_held_by_one(tmp_path):
    """Who is refused hears by whom; nothing stays behind, and one that a killed process left can be had."""
    lock = tmp_path / "folder" / "lock"
    lock.parent.mkdir()
    lock.write_text("who was killed")
    for name in ("first", "second"):
        with locked(lock, name):
            with pytest.raises(BlockingIOError, match=name), locked(lock, "third"):
                pytest.fail("it was had twice")
            assert lock.read_text() == name
        assert list(lock.parent.iterdir()) == []


def test_a_lock_that_is_dropped_as_it_is_waited_for_is_made_anew(tmp_path, monkeypatch):
    """Else two would hold two files of one name."""
    lock, flock, dropped = tmp_path / "lock", fcntl.flock, []

    def drop_and_lock(file, how):
        if not dropped:
            lock.unlink()
            dropped.append(file)
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", drop_and_lock)
    with locked(lock, "first"):
        assert dropped and lock.read_text() == "first"
        with pytest.raises(BlockingIOError, match="first"), locked(lock, "second"):
            pytest.fail("it was had twice")


def test_a_directory_gets_its_name(tmp_path):
    """The name it was written under is gone."""
    replace_directory(made(tmp_path / ".partial", a="1"), tmp_path / "final")
    assert tree(tmp_path) == {"final/a": "1"}


def test_a_directory_replaces_another(tmp_path):
    """Files of the old one that the new one lacks do not stay."""
    made(tmp_path / "final", a="old", b="old")
    replace_directory(made(tmp_path / ".partial", a="new"), tmp_path / "final")
    assert tree(tmp_path) == {"final/a": "new"}
    assert os.listdir(tmp_path) == ["final"]


@pytest.mark.parametrize("failing_rename", [0, 1])
def test_what_was_published_survives_an_end_at_any_rename(tmp_path, monkeypatch, failing_rename):
    """The old content is whole on disk, and the next call publishes and clears up."""
    made(tmp_path / "final", a="old")
    made(tmp_path / ".partial", a="new")
    rename, calls = os.rename, []

    def dying(source, target):
        calls.append(target)
        if len(calls) > failing_rename:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(files.os, "rename", dying)
    with pytest.raises(KeyboardInterrupt):
        replace_directory(tmp_path / ".partial", tmp_path / "final")
    assert "old" in tree(tmp_path).values()
    monkeypatch.undo()
    replace_directory(tmp_path / ".partial", tmp_path / "final")
    assert tree(tmp_path) == {"final/a": "new"}
    assert os.listdir(tmp_path) == ["final"]
