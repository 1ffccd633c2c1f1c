"""Reads JSON lines of one type, and says where a bad one stands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

import msgspec

Line = TypeVar("Line")


def read_jsonl(path: str, line_type: type[Line], example: str, *, held_out: bool) -> list[tuple[str, Line]]:
    """Each line, under its `file:line`; blank ones are left out. `held_out` says which key gave the path.

    Raises:
        ValueError: no such file, a line that is not of `line_type` (`example` is), or no lines.
    """
    key = "data.eval_path" if held_out else "data.path"
    decoder = msgspec.json.Decoder(line_type)
    lines = []
    for number, line in enumerate(_lines(key, path, example), start=1):
        if line.strip():
            where = f"{path}:{number}"
            try:
                lines.append((where, decoder.decode(line)))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{where}: {error}; expected a line like {example}") from None
    if not lines:
        raise ValueError(f"{key}: {path}: the dataset is empty; expected lines like {example}")
    return lines


def _lines(key: str, path: str, example: str) -> list[bytes]:
    try:
        return Path(os.path.expanduser(path)).read_bytes().split(b"\n")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{key}: {path!r}: cannot read this dataset ({getattr(error, 'strerror', error)}); "
            f"give `sums` or a JSONL file with lines like {example}"
        ) from None
