"""The directory of a run: empty for a new run, and held by one master. It may be a link."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from realrl.base.files import locked
from realrl.runtime.failure import RunFailed, RunRefused

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM)
"""Errors of files if they name one; otherwise of something else, as a socket."""


@contextmanager
def refused_writes(directory: Path) -> Iterator[None]:
    """Turn errors of a disk that is full or gone into a failure that names it: a restart cannot help."""
    try:
        yield
    except OSError as error:
        is_of_file = error.errno in _NOT_ALLOWED and error.filename
        if error.errno not in _DISK_ERRORS and not is_of_file:
            raise
        where = error.filename or directory
        raise RunFailed(
            f"cannot read or write {where}: {error.strerror}; mend it, and start again"
        ) from error


@contextmanager
def held_alone(directory: Path) -> Iterator[None]:
    """Lock the directory of a run: two masters would each undo what the other does.

    Raises:
        RunRefused: another master holds it.
    """
    lock = directory.with_name(f".{directory.name}.lock")
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, me))
        except BlockingIOError as error:
            what = f"{directory} has a master at work, {error.strerror}; end that first, or set another trial"
            raise RunRefused(what) from None
        yield


def fresh_directory(path: Path) -> Path | None:
    """Make an empty directory. An earlier run in it is kept under another name, which is returned.

    If `path` is a link, the directory is its target, and an earlier run stays on that disk.

    Raises:
        RunRefused: the disk of a link is not there, or an earlier run cannot be renamed.
    """
    real = _target(path)
    moved = None
    if real.exists() and (not real.is_dir() or any(real.iterdir())):
        moved = _free_name(real)
        try:
            real.rename(moved)
        except OSError as error:  # a mount point has no other name
            raise RunRefused(
                f"{path} has an earlier run, which cannot be renamed to {moved} ({error.strerror}); move what"
                " is in it elsewhere, or give another trial"
            ) from None
    (real / "logs").mkdir(parents=True)
    return moved


def _target(path: Path) -> Path:
    """Return where a path points to.

    Raises:
        RunRefused: the disk of a link is not there.
    """
    if not path.is_symlink():
        return path
    real = path.resolve()
    if not real.parent.is_dir():
        raise RunRefused(
            f"{path} is a link to {real}, and there is no {real.parent}; mount that disk, or remove the link"
        )
    return real


def _free_name(path: Path) -> Path:
    """Return the path with the next number that no other has."""
    taken: list[int] = []
    for other in path.parent.glob(f"{path.name}.*"):
        number = other.suffix.removeprefix(".")
        if number.isdigit():
            taken.append(int(number))
    next_number = max(taken, default=0) + 1
    return path.with_name(f"{path.name}.{next_number}")
