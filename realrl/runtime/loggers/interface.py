"""What a logger is, what it is told of a run, and which there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import msgspec

from realrl.api.config import RunConfig


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a logger is told of a run before its first row."""

    experiment: str
    trial: str
    directory: str
    """The run's; a logger that writes files makes a folder of its own there."""
    config: dict[str, Any]
    """The resolved config by dotted key."""
    run_id: str
    """20 lower-case hexadecimal digits; a run that is resumed keeps its id."""
    continues: bool
    """Whether this logger has rows of this run from before."""
    first_step: int
    """The first step that comes now; what was logged of it and of later ones comes again."""


class Logger(Protocol):
    """One run in one tool. Any method may raise; the caller counts what was lost."""

    where: str
    """How a person sees the run: an address or a command; may be empty."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record the summary of a run that is done, or mark the run as failed; then flush and close."""


class _Tool(NamedTuple):
    package: str
    """What must be installed."""
    has_process: bool
    """Whether it gets a process of its own: it prints, asks, waits for a network, or hooks into the exit."""


TOOLS: Mapping[str, _Tool] = {
    "tensorboard": _Tool("tensorboard", has_process=False),
    "wandb": _Tool("wandb", has_process=True),
    "mlflow": _Tool("mlflow", has_process=True),
    "trackio": _Tool("trackio", has_process=True),
    "swanlab": _Tool("swanlab", has_process=True),
}
"""By the name that `logger` gives; a module of this folder has the same name."""


def check_loggers(config: RunConfig) -> None:
    """
    Raises:
        ValueError: the package of a logger is not installed.
    """
    for name in config.logger:
        if not _is_installed(TOOLS[name].package):
            raise ValueError(
                f"logger: {name} is not installed; run `pip install 'realrl[{name}]'`, or leave {name} out"
            )


def _is_installed(package: str) -> bool:
    spec = find_spec(package)
    # Tools keep their files in folders of their name: such a folder alone is no package.
    return spec is not None and spec.origin is not None


def open_logger(name: str, facts: RunFacts) -> Logger:
    """Open a logger in this process."""
    return import_module(f"realrl.runtime.loggers.{name}").open_logger(facts)


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key."""
    return dict(_leaves(value, prefix))


def _leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def numbers_of(summary: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a summary by dotted key."""
    return {key: value for key, value in flattened(summary).items() if type(value) in (int, float)}


def plain_name(name: str, most: int = 100) -> str:
    """A name that every tool accepts: letters, digits, `_`, `-`, `.`; others become `-`."""
    return re.sub(r"[^0-9A-Za-z_.-]", "-", name)[:most]
