"""The tokenizer and the rows of a run; the master and every worker open the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from realrl.api.config import RunConfig
from realrl.api.evals import HELD_OUT
from realrl.api.recipe import Dataset, Recipe
from realrl.runtime.model_directories import load_tokenizer, resolve_model


class RunData(NamedTuple):
    """What the bodies of calls look up."""

    tokenizer: Any
    rows: Dataset
    held_out: Dataset | None
    more_sets: Mapping[str, Dataset] = {}
    """Further sets that the run is evaluated on, by name."""

    @property
    def eval_sets(self) -> dict[str, Dataset]:
        """All sets that the run is evaluated on, by name."""
        held_out = {} if self.held_out is None else {HELD_OUT: self.held_out}
        return {**held_out, **self.more_sets}

    @property
    def notes(self) -> list[str]:
        """What a person should know of the rows, as how many were left out."""
        notes = list(getattr(self.rows, "notes", ()))
        if self.held_out is not None:
            notes += getattr(self.held_out, "notes", ())
        for name, rows in self.more_sets.items():
            notes += [f"evals.{name}: {note}" for note in getattr(rows, "notes", ())]
        return notes


def open_data(recipe: Recipe, config: RunConfig) -> RunData:
    """Return the rows of a recipe, in tokens of its first model."""
    tokenizer = load_tokenizer(model_directory(recipe, config))
    rows, held_out = recipe.datasets(config, tokenizer)
    more_sets = recipe.eval_sets(config, tokenizer)
    return RunData(tokenizer, rows, held_out, more_sets)


def model_directory(recipe: Recipe, config: RunConfig) -> Path:
    """Return the directory of the recipe's first model, which has its description, and maybe no weights."""
    first, *_ = recipe.models(config).values()
    return resolve_model(first.model.path, first.model.commit, weights=False)
