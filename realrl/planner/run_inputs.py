"""What a run reads before it starts, as far as plans, memory and checks depend on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from realrl.api.recipe import ModelSpec
from realrl.datasets.digests import DataDigest, RowsDigest
from realrl.models.config import DecoderConfig


@dataclass(frozen=True)
class FoundModel:
    """A model of the recipe, and what its directory says."""

    path: str
    """The config key that names its directory."""
    spec: ModelSpec
    directory: Path
    decoder: DecoderConfig


@dataclass(frozen=True)
class SetFacts:
    """Facts about one of several data sets."""

    name: str
    num_rows: int
    share: float
    """Its share of every batch."""


@dataclass(frozen=True)
class RowFacts:
    """Facts about one side of a run's data, its training rows or its held-out rows."""

    longest: int
    """Tokens of the longest row, as `Dataset.length` counts them."""
    sequence_lengths: tuple[int, ...]
    """Tokens of each row's longest sequence."""
    longest_place: str
    """File and line of the row with the longest sequence."""
    largest_token: int
    largest_place: str
    """File and line of the row with the largest token."""
    notes: tuple[str, ...]
    """What a user should know about the rows."""
    form: str
    """The form of their prompts, in words: a line for each data set."""
    digest: RowsDigest
    """A digest of everything that a rank looks up in them."""
    sets: tuple[SetFacts, ...] = ()
    """The data sets that they are from, if there are several sources."""

    def __len__(self) -> int:
        return len(self.sequence_lengths)


@dataclass(frozen=True)
class RunInputs:
    """The models and rows of a run."""

    models: Mapping[str, FoundModel]
    rows: RowFacts
    held_out: RowFacts | None
    more_sets: Mapping[str, RowFacts] = field(default_factory=dict)
    """Further sets that the run is evaluated on, by name."""

    @property
    def digest(self) -> DataDigest:
        """The digests of all rows."""
        held_out = None if self.held_out is None else self.held_out.digest
        more_sets = {name: facts.digest for name, facts in self.more_sets.items()}
        return DataDigest(self.rows.digest, held_out, more_sets)
