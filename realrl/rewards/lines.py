"""Reads and writes lines by a pipe's descriptor, without a buffer: another process may read the next line."""

from __future__ import annotations

import os
from collections.abc import Iterator

_CHUNK_BYTES = 1 << 16
"""The largest number of bytes read at once."""


def lines_of(file: int) -> Iterator[bytes]:
    """Yield each line as soon as it is complete, until the end; an incomplete last line is dropped."""
    begun = b""
    while chunk := os.read(file, _CHUNK_BYTES):
        *lines, begun = (begun + chunk).split(b"\n")
        yield from lines


def write_all(file: int, content: bytes) -> None:
    """Write all of the content, however many writes that takes."""
    while content:
        num_written = os.write(file, content)
        content = content[num_written:]
