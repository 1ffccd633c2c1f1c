"""Durations as a person reads them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Return a duration as `minutes:seconds`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:d}:{rest:02d}"
