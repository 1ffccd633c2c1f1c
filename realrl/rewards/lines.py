"""Lines through a pipe, by its descriptor: nothing is buffered that another process may read."""

from __future__ import annotations

import os
from collections.abc import Iterator


def lines_of(file: int) -> Iterator[bytes]:
    """Each line as soon as it is there, until the end; what no line ends is dropped."""
    begun = b""
    while chunk := os.read(file, 1 << 16):
        *lines, begun = (begun + chunk).split(b"\n")
        yield from lines


def write_all(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]
