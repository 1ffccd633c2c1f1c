"""Counts in words."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, as `1 step` or `2 steps`."""
    ending = "" if number == 1 else "s"
    return f"{number} {noun}{ending}"
