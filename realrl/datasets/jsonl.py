"""Reads files of JSON, and says where a bad line stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

Record = dict[str, Any]


def read_json(path: str, key: str, example: str) -> Iterator[tuple[str, Record]]:
    """Each line of a file, under its `file:line`, blank ones left out; or each row of a `.json` file that is
    one list. `key` is what gave the path.

    Raises:
        ValueError: no such file, or a line that is no object; `example` is one.
    """
    text = _read(path, key, example)
    is_list = path.endswith(".json") and text.lstrip().startswith(b"[")
    return _listed(path, text, example) if is_list else _lines(path, text, example)


def _lines(path: str, text: bytes, example: str) -> Iterator[tuple[str, Record]]:
    decoder = msgspec.json.Decoder(Record)
    for number, line in enumerate(text.split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{where}: {error}; expected a line like {example}") from None


def _listed(path: str, text: bytes, example: str) -> Iterator[tuple[str, Record]]:
    try:
        rows = msgspec.json.decode(text, type=list[Record])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}; expected a list of rows like {example}") from None
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _read(path: str, key: str, example: str) -> bytes:
    try:
        return Path(os.path.expanduser(path)).read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{key}: {path!r}: cannot read this dataset ({getattr(error, 'strerror', error)}); "
            f"give `sums` or a JSONL file with lines like {example}"
        ) from None
