"""Settings that are checked as they are made."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """
    Raises:
        ValueError: `condition` is not so.
    """
    if not condition:
        raise ValueError(message)
