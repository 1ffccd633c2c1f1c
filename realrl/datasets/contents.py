"""Contents of data files: unpacked, in UTF-8, without a byte-order mark. Errors name other kinds of files."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

_UNPACK_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)


class _Packed(NamedTuple):
    """A compression format."""

    magic: bytes
    """The bytes that such a file begins with."""
    name: str
    unpack: Callable[[bytes], bytes]


def _unpack_zstd(content: bytes) -> bytes:
    """Decompress by pyarrow: Python's own library has no zstd."""
    try:
        pyarrow = import_module("pyarrow")
    except ImportError:
        raise ValueError("zstd needs the package pyarrow; install realrl[data]") from None
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
        return stream.read()


_PACKED = (
    _Packed(b"\x1f\x8b", "gzip", gzip.decompress),
    _Packed(b"BZh", "bzip2", bz2.decompress),
    _Packed(b"\xfd7zXZ\x00", "xz", lzma.decompress),
    _Packed(b"\x28\xb5\x2f\xfd", "zstd", _unpack_zstd),
)
_OTHER_KINDS = (
    (b"PAR1", "a Parquet file: rename it to end in .parquet"),
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"ARROW1", "an Arrow file: give its folder as hf:FOLDER"),
    (b"SQLite format 3", "an SQLite database: write its rows as JSONL"),
    (codecs.BOM_UTF16_LE, "text in UTF-16: write it in UTF-8"),
    (codecs.BOM_UTF16_BE, "text in UTF-16: write it in UTF-8"),
    (b"{\x00", "text in UTF-16: write it in UTF-8"),
    (b"\x00{", "text in UTF-16: write it in UTF-8"),
)
"""The first bytes of files that are often given in place of JSON. UTF-32 begins like UTF-16."""
_TABLE_HEADER = re.compile(rb'"?[A-Za-z_][\w .-]*"?(?:[,;\t]"?[A-Za-z_][\w .-]*"?)+')
_TABLE_ENDINGS = (".csv", ".tsv")
_TABLE = "a table of text (CSV): write it as JSONL, or put it into a folder of its own and give hf:FOLDER"
_SPECIAL = (
    (
        stat.S_ISFIFO,
        "a pipe, which can be read but once, and every worker reads the rows: write them to a file",
    ),
    (stat.S_ISCHR, "a device: give a file"),
    (stat.S_ISBLK, "a device: give a file"),
    (stat.S_ISSOCK, "a socket: give a file"),
)


def read_contents(path: str, key: str, example: str) -> bytes:
    """Return the text of a data file, in UTF-8. `key` is the config key that gives the path.

    Raises:
        ValueError: no such file, or its first bytes are not JSON; the message quotes `example`, a valid line.
    """
    try:
        file = check_is_file(path, key)
        content = file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{key}: {path!r}: cannot read this dataset ({error.strerror}); "
            f"give `sums` or a JSONL file with lines like {example}"
        ) from None
    return plain_text(content, path, key, example)


def plain_text(content: bytes, path: str, key: str, example: str) -> bytes:
    """Return the text in a file's content: unpacked, and without a byte-order mark.

    Raises:
        ValueError: the content cannot be unpacked, or its first bytes are not JSON.
    """
    text = _unpacked(content, path, key)
    what = _other_kind(text, path)
    if what:
        raise ValueError(f"{key}: {path} is {what}; expected JSON, with lines like {example}")
    return text.removeprefix(codecs.BOM_UTF8)


def check_is_file(path: str, key: str) -> Path:
    """Return the path of a regular file, with `~` expanded.

    Raises:
        OSError: nothing accessible is at the path.
        ValueError: a folder, a pipe, a device or a socket is at the path.
    """
    file = Path(os.path.expanduser(path))
    if "\0" in path:
        raise ValueError(f"{key}: {path!r}: no file has a name with a null character")
    mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        inside = _file_to_give(file)
        raise ValueError(f"{key}: {path} is a folder: give {inside}, or hf:{path} for a folder of data files")
    for is_kind, what in _SPECIAL:
        if is_kind(mode):
            raise ValueError(f"{key}: {path} is {what}")
    return file


def _file_to_give(folder: Path) -> str:
    """Return what to give in place of a folder: its first data file, if it has one."""
    endings = (".json", ".jsonl", ".parquet")
    names = [entry.name for entry in folder.iterdir() if entry.suffix in endings]
    if not names:
        return "a file of rows"
    return f"one of its files, as {folder / min(names)}"


def looks_like_table(line: bytes) -> bool:
    """Return whether the first line of a file that is not JSON looks like the header of a CSV file."""
    return _TABLE_HEADER.fullmatch(line.strip()) is not None


def no_table(path: str, example: str) -> ValueError:
    """Return the error for a CSV file."""
    return ValueError(f"{path} is {_TABLE}; expected JSON, with lines like {example}")


def _unpacked(content: bytes, path: str, key: str) -> bytes:
    """Return the content unpacked; content of no known compression is returned as it is."""
    for packed in _PACKED:
        if content.startswith(packed.magic):
            try:
                return packed.unpack(content)
            except _UNPACK_ERRORS as error:
                raise ValueError(f"{key}: {path}: cannot unpack this {packed.name} file ({error})") from None
    return content


def _other_kind(text: bytes, path: str) -> str:
    """Return the kind of a file that is not JSON; empty if it may be JSON."""
    if path.lower().endswith(_TABLE_ENDINGS):
        return _TABLE
    for magic, what in _OTHER_KINDS:
        if text.startswith(magic):
            return what
    return ""
