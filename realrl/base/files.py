"""Files and directories that appear whole or not at all: written aside, flushed to disk, renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

_BYTES_AT_ONCE = 1 << 20
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def write_atomically(path: Path | str, content: str | bytes, *, durable: bool = True) -> None:
    """Write a file, or replace one, so that a reader sees the old content or the new, never a part.

    Missing parent directories are created. Only if `durable`, the function waits for the disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        # After a signal, the file may have its name already.
        with suppress(FileNotFoundError):
            os.unlink(aside)
        raise

    if durable:
        sync(path.parent)


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` create a file that appears whole, and on disk, or not at all.

    Its mode is the one of a new file, by the umask or the folder's default. (safetensors writes private
    files.)
    """
    aside = path.with_name(f".{path.name}.partial")
    aside.touch()
    mode = _mode(aside)
    write(aside)
    if _mode(aside) != mode:
        aside.chmod(mode)
    sync(aside)
    os.replace(aside, path)
    sync(path.parent)


def replace_directory(aside: Path | str, final: Path | str) -> None:
    """Publish the finished directory `aside` under the name `final`, and replace an earlier one.

    Both are on one file system. All of `aside` is on disk before it gets its name. The earlier directory
    keeps its content until the new one is in place, under the name `.NAME.old` for a moment.
    """
    aside = Path(aside)
    final = Path(final)
    sync_tree(aside)
    old = final.with_name(f".{final.name}.old")
    if old.exists():
        finish_replacement(old, final)
    if final.exists():
        os.rename(final, old)
    os.rename(aside, final)
    sync(final.parent)
    if old.exists():
        shutil.rmtree(old)


def finish_replacement(old: Path, final: Path) -> None:
    """Clean up after a process that ended within `replace_directory`, which left `old` behind."""
    if final.exists():
        shutil.rmtree(old)
    else:
        os.rename(old, final)


@contextmanager
def locked(path: Path, holder: str) -> Iterator[None]:
    """Hold a lock within the context: a file at `path`, which names the holder.

    A process that ends in any way releases its locks.

    Raises:
        BlockingIOError: another process holds the lock; the message is its `holder`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path) as file:
        file.truncate(0)
        file.write(holder)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _lock(path: Path) -> TextIO:
    """Return the file at `path`, locked if its file system has locks."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            with file:
                raise BlockingIOError(error.errno, file.read()) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        # The earlier holder may have unlinked the file in the meantime.
        if _is_at(path, file):
            return file
        file.close()


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def sync_tree(directory: Path) -> None:
    """Flush every file and directory below `directory`, and itself, to disk."""
    for folder, _, files in os.walk(directory):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))


def sync(path: Path) -> None:
    """Flush a file, or a directory's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(path: Path) -> str:
    """Return the BLAKE2b digest of a file's content: 16 bytes, in hexadecimal."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BYTES_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()
