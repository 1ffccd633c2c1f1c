"""How somebody who does a long piece of work says that it goes forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Progress = Callable[[int, int], None]
"""`(done, total)` samples. Each call says that there is progress: a token, a micro-batch, an answer."""

Item = TypeVar("Item")


def no_progress(done: int, total: int) -> None:
    """For whoever does not want to know."""


def counted(items: Iterable[Item], total: int, progress: Progress) -> Iterator[Item]:
    """The items, each of which `progress` is told of once it is there."""
    for done, item in enumerate(items, start=1):
        progress(done, total)
        yield item
