"""The interface of loggers, the facts that a logger gets about a run, and the registry of loggers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import msgspec

from realrl.api.config import RunConfig


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a logger is told about a run before its first row."""

    experiment: str
    trial: str
    directory: str
    """The run's directory; a logger that writes files makes a folder of its own there."""
    config: dict[str, Any]
    """The resolved config by dotted key."""
    run_id: str
    """20 lower-case hexadecimal digits; a run that is resumed keeps its id."""
    continues: bool
    """Whether this logger has rows of an earlier part of this run."""
    first_step: int
    """The first step that is logged now; rows that were logged of it and of later ones are repeated."""


class Logger(Protocol):
    """One run in one tool. Any method may raise; the caller counts what was lost."""

    @property
    def where(self) -> str:
        """How a user sees the run: an address or a command; may be empty."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record the summary of a run that is done, or mark the run as failed; then flush and close."""


class _Tool(NamedTuple):
    """A tool that shows metrics."""

    package: str
    """The package that must be installed."""
    has_process: bool
    """Whether it gets a process of its own: it prints, asks, waits for a network, or hooks into the exit."""


TOOLS: Mapping[str, _Tool] = {
    "tensorboard": _Tool("tensorboard", has_process=False),
    "wandb": _Tool("wandb", has_process=True),
    "mlflow": _Tool("mlflow", has_process=True),
    "trackio": _Tool("trackio", has_process=True),
    "swanlab": _Tool("swanlab", has_process=True),
}
"""By the name in the config's `logger`, which is also that of a module of this folder."""


def check_loggers(config: RunConfig) -> None:
    """Check that the packages of the config's loggers are installed.

    Raises:
        ValueError: the package of a logger is not installed.
    """
    for name in config.logger:
        if not _is_installed(TOOLS[name].package):
            raise ValueError(
                f"logger: {name} is not installed; run `pip install 'realrl[{name}]'`, or leave {name} out"
            )


def _is_installed(package: str) -> bool:
    """Return whether a package can be imported."""
    spec = find_spec(package)
    # Tools keep their files in folders of their name, and Python takes such a folder for a package.
    return spec is not None and spec.origin is not None


def open_logger(name: str, facts: RunFacts) -> Logger:
    """Open a logger in this process."""
    module = import_module(f"realrl.runtime.loggers.{name}")
    opened: Logger = module.open_logger(facts)
    return opened


def flattened(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of nested mappings by dotted key."""
    return dict(_leaves(value, ""))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; an empty mapping is a value."""
    for name, inner in value.items():
        key = f"{prefix}{name}"
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{key}.")
        else:
            yield key, inner


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a summary by dotted key."""
    numbers = {}
    for key, value in flattened(summary).items():
        # Not isinstance: True is an int.
        if type(value) in (int, float):
            numbers[key] = value
    return numbers


def summary_scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a summary, named as loggers show them: `summary/num_steps`."""
    return {f"summary/{key}": value for key, value in numbers_of(summary).items()}


def plain_name(name: str, most: int = 100) -> str:
    """Return a name that every tool accepts: letters, digits, `_`, `-`, `.`; others become `-`."""
    accepted = re.sub(r"[^0-9A-Za-z_.-]", "-", name)
    return accepted[:most]
