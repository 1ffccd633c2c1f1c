"""What the runtime asks of a recipe's config beyond `RunConfig`, each as a protocol.

A config that trains is a `TrainingConfig`. The rest may be true of any config: it has the section, or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from realrl.api.config import GenerationConfig, RunConfig
from realrl.api.data import DataConfig
from realrl.api.evals import EvalConfig


@runtime_checkable
class Generating(Protocol):
    """A config of a recipe that generates responses."""

    @property
    def generation(self) -> GenerationConfig:
        """How responses are sampled."""
        ...


@runtime_checkable
class ReadingData(Protocol):
    """A config that names the rows of a run."""

    @property
    def data(self) -> DataConfig:
        """Where rows come from."""
        ...


@runtime_checkable
class Rewarding(Protocol):
    """A config of a recipe that rewards responses."""

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Every reward that some row has."""
        ...


@runtime_checkable
class Evaluating(Protocol):
    """A config of a recipe that may be evaluated on several sets of problems."""

    @property
    def evals(self) -> Mapping[str, EvalConfig]:
        """The sets, by name, except the held-out rows of `data`."""
        ...


def evals_of(config: RunConfig) -> Mapping[str, EvalConfig]:
    """Return the sets that a config evaluates on, by name, except the held-out rows of `data`."""
    return config.evals if isinstance(config, Evaluating) else {}


def generation_of(config: RunConfig) -> GenerationConfig | None:
    """Return how a config's responses are sampled, or None if its recipe generates none."""
    return config.generation if isinstance(config, Generating) else None


def needed_generation(config: RunConfig) -> GenerationConfig:
    """Return how a config's responses are sampled, for a graph that has a generate call."""
    generation = generation_of(config)
    assert generation is not None, f"{type(config).__name__} generates, but has no section generation"
    return generation


def with_generation(config: RunConfig, generation: GenerationConfig) -> RunConfig:
    """Return the config with other settings of its generation, which it must have."""
    changes: dict[str, Any] = {"generation": generation}
    return replace(config, **changes)


def data_of(config: RunConfig) -> DataConfig | None:
    """Return where a config's rows come from, or None if it names none."""
    return config.data if isinstance(config, ReadingData) else None
