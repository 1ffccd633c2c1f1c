"""Checks of settings when they are created."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Check a condition.

    Raises:
        ValueError: it does not hold.
    """
    if not condition:
        raise ValueError(message)


def require_at_most(config: object, most: int, *names: str) -> None:
    """Check that fields of a config are None or at most `most`, more than anything that could run.

    Raises:
        ValueError: one is larger.
    """
    for name in names:
        value = getattr(config, name)
        require(value is None or value <= most, f"{name} must be at most {most}, got {value}")
