"""The day that chat templates are told: the same for all ranks, and for a resume on another day."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace


@contextmanager
def templates_at(day: str | None) -> Iterator[None]:
    """Have chat templates that ask for the time (`strftime_now`) find midnight of `day`; None for the clock.

    transformers takes no functions for a template, so that its clock is exchanged meanwhile.
    """
    if day is None:
        yield
        return
    from transformers.utils import chat_template_utils

    clock, midnight = chat_template_utils.datetime, datetime.fromisoformat(day)
    chat_template_utils.datetime = SimpleNamespace(now=lambda: midnight)
    try:
        yield
    finally:
        chat_template_utils.datetime = clock
