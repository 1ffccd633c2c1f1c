"""Reads files of JSON lines, and says where a bad one stands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec


def read_jsonl(path: str, key: str, example: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line, under its `file:line`; blank ones are left out. `key` is what gave the path.

    Raises:
        ValueError: no such file, or a line that is no object; `example` is one.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, line in enumerate(_lines(path, key, example), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                yield where, decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{where}: {error}; expected a line like {example}") from None


def _lines(path: str, key: str, example: str) -> list[bytes]:
    try:
        return Path(os.path.expanduser(path)).read_bytes().split(b"\n")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{key}: {path!r}: cannot read this dataset ({getattr(error, 'strerror', error)}); "
            f"give `sums` or a JSONL file with lines like {example}"
        ) from None
