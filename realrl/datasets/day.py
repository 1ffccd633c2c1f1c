"""The date that chat templates see: the same on all ranks, and after a resume on another day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any


@contextmanager
def templates_at(day: str | None) -> Iterator[None]:
    """Make chat templates that ask for the time (`strftime_now`) see midnight of `day`; None: the clock.

    transformers lets no caller pass a clock to a template, so its own is replaced inside the block.
    """
    if day is None:
        yield
        return
    from transformers.utils import chat_template_utils

    module: Any = chat_template_utils
    clock = module.datetime
    midnight = datetime.fromisoformat(day)
    module.datetime = SimpleNamespace(now=lambda: midnight)
    try:
        yield
    finally:
        module.datetime = clock
