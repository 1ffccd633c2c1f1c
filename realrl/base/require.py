"""Checks of settings, made when a config is constructed."""

from __future__ import annotations


def require(condition: bool, message: str) -> None:
    """Check one condition.

    Raises:
        ValueError: `condition` is false; the error has `message`.
    """
    if not condition:
        raise ValueError(message)


def require_at_least(config: object, least: int, *names: str) -> None:
    """Check a lower bound of several fields; None passes.

    Raises:
        ValueError: one of these fields is smaller.
    """
    for name in names:
        value = getattr(config, name)
        require(value is None or value >= least, f"{name} must be at least {least}, got {value}")


def require_not_negative(config: object, *names: str) -> None:
    """Check that several fields are 0 or more.

    Raises:
        ValueError: one of these fields is negative.
    """
    for name in names:
        value = getattr(config, name)
        require(value >= 0, f"{name} must not be negative, got {value}")


def require_at_most(config: object, most: int, *names: str) -> None:
    """Check an upper bound of several fields, beyond which nothing could run; None passes.

    Raises:
        ValueError: one of these fields is larger.
    """
    for name in names:
        value = getattr(config, name)
        require(value is None or value <= most, f"{name} must be at most {most}, got {value}")
