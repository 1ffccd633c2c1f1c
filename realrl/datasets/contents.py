"""Contents of data files: unpacked, in UTF-8, without a byte-order mark. Other kinds of files are named."""

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
    """A kind of compression."""

    magic: bytes
    name: str
    unpack: Callable[[bytes], bytes]


def _unpack_zstd(content: bytes) -> bytes:
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
"""What files begin with that are often given in place of JSON. UTF-32 begins as UTF-16 does."""
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
    """The text of a data file, as UTF-8. `key` is what gave the path.

    Raises:
        ValueError: no such file, or none of JSON by its first bytes; `example` is a line of one.
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
    """The text in a file's content: unpacked, and without a byte-order mark.

    Raises:
        ValueError: it is packed badly, or no JSON by its first bytes.
    """
    text = _unpacked(content, path, key)
    if what := _other_kind(text, path):
        raise ValueError(f"{key}: {path} is {what}; expected JSON, with lines like {example}")
    return text.removeprefix(codecs.BOM_UTF8)


def check_is_file(path: str, key: str) -> Path:
    """The file at a path.

    Raises:
        OSError: there is none that can be looked at.
        ValueError: something that is no file is there.
    """
    file = Path(os.path.expanduser(path))
    if "\0" in path:
        raise ValueError(f"{key}: {path!r}: no file has a name with a null character")
    mode = file.stat().st_mode
    if stat.S_ISDIR(mode):
        endings = (".json", ".jsonl", ".parquet")
        found = sorted(entry.name for entry in file.iterdir() if entry.suffix in endings)
        inside = f"one of its files, as {file / found[0]}" if found else "a file of rows"
        raise ValueError(f"{key}: {path} is a folder: give {inside}, or hf:{path} for a folder of data files")
    for is_so, what in _SPECIAL:
        if is_so(mode):
            raise ValueError(f"{key}: {path} is {what}")
    return file


def looks_like_table(line: bytes) -> bool:
    """Whether the first line of a file that is no JSON is rather the head of a CSV file."""
    return bool(re.fullmatch(rb'"?[A-Za-z_][\w .-]*"?(?:[,;\t]"?[A-Za-z_][\w .-]*"?)+', line.strip()))


def no_table(path: str, example: str) -> ValueError:
    """The error for a CSV file."""
    return ValueError(f"{path} is {_TABLE}; expected JSON, with lines like {example}")


def _unpacked(content: bytes, path: str, key: str) -> bytes:
    for packed in _PACKED:
        if content.startswith(packed.magic):
            try:
                return packed.unpack(content)
            except _UNPACK_ERRORS as error:
                raise ValueError(f"{key}: {path}: cannot unpack this {packed.name} file ({error})") from None
    return content


def _other_kind(text: bytes, path: str) -> str:
    if path.lower().endswith(_TABLE_ENDINGS):
        return _TABLE
    return next((what for magic, what in _OTHER_KINDS if text.startswith(magic)), "")
