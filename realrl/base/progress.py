"""Reports of progress from long pieces of work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Called with `(done, total)` samples after each bit of progress: a token, a micro-batch, an answer."""

Item = TypeVar("Item")


def no_progress(done: int, total: int) -> None:
    """Ignore the progress."""


def counted(items: Iterable[Item], total: int, progress: Progress) -> Iterator[Item]:
    """Yield the items, and report each to `progress` before."""
    for done, item in enumerate(items, start=1):
        progress(done, total)
        yield item
