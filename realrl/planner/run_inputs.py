"""What a run reads, as far as plans, memory and checks depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from realrl.api.recipe import ModelSpec
from realrl.datasets.digests import RowsDigest
from realrl.models.config import DecoderConfig


@dataclass(frozen=True)
class FoundModel:
    """A model of the recipe, with what its directory says."""

    path: str
    """The config key that names its directory."""
    spec: ModelSpec
    directory: Path
    decoder: DecoderConfig


@dataclass(frozen=True)
class RowFacts:
    """One side of a run's data, as far as plans, memory and checks depend on it."""

    longest: int
    """Tokens of the longest row, as `Dataset.length` counts them."""
    sequence_lengths: tuple[int, ...]
    """Tokens of each row's longest sequence."""
    longest_place: str
    """Where the row with the longest sequence is from."""
    largest_token: int
    largest_place: str
    """Where the row with the largest token is from."""
    notes: tuple[str, ...]
    """What a person should know of the rows."""
    form: str
    """The form of their prompts, in words."""
    digest: RowsDigest
    """Of all that a rank looks up in them."""

    def __len__(self) -> int:
        return len(self.sequence_lengths)


@dataclass(frozen=True)
class RunInputs:
    """What a run reads before anything starts."""

    models: Mapping[str, FoundModel]
    rows: RowFacts
    held_out: RowFacts | None
