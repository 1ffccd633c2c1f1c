"""Settings that are checked as they are made."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """
    Raises:
        ValueError: `condition` is not so.
    """
    if not condition:
        raise ValueError(message)


def require_at_most(config: object, most: int, *names: str) -> None:
    """
    Raises:
        ValueError: one of these fields is larger than anything that could run.
    """
    for name in names:
        value = getattr(config, name)
        require(value is None or value <= most, f"{name} must be at most {most}, got {value}")
