"""Reads files of JSON lines that may still be written, or have been damaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec


class Line(NamedTuple):
    """An object, and the byte of its file at which it begins."""

    offset: int
    content: dict[str, Any]


class JsonLines:
    """The objects of a file; `damaged` counts the lines that are not objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self.is_cut = False
        """Whether the last line is incomplete: it is being written, or its writer died."""

    def __iter__(self) -> Iterator[Line]:
        if not self.path.is_file():
            return
        offset = 0
        with self.path.open("rb") as file:
            for raw in file:
                content = parse(raw)
                if content is not None:
                    yield Line(offset, content)
                elif not raw.endswith(b"\n"):
                    self.is_cut = True
                elif raw.strip():
                    self.damaged += 1
                offset += len(raw)

    def notes(self) -> list[str]:
        """Return what a user should know about lines that are left out."""
        found = []
        if self.damaged:
            found.append(f"{self.path.name}: {self.damaged} damaged lines are left out")
        if self.is_cut:
            found.append(f"{self.path.name}: the last line is incomplete and left out")
        return found


def parse(raw: bytes) -> dict[str, Any] | None:
    """Return the object of a line, or None if it is not an object."""
    try:
        content = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        content = _parse_as_python_writes(raw)
    return content if isinstance(content, dict) else None


def _parse_as_python_writes(raw: bytes) -> Any:
    """Read JSON with NaN, infinities or half of a surrogate pair, which other writers leave in files."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
