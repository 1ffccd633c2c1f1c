"""A run's tokenizer and rows, which the master and every worker open alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from realrl.api.config import RunConfig
from realrl.api.recipe import Dataset, Recipe
from realrl.runtime.model_directories import load_tokenizer, resolve_model


class RunData(NamedTuple):
    """What the bodies of calls look things up in."""

    tokenizer: Any
    rows: Dataset
    held_out: Dataset | None

    @property
    def notes(self) -> list[str]:
        """What a person should know of the rows, as how many were left out."""
        sides = [self.rows] if self.held_out is None else [self.rows, self.held_out]
        return [note for side in sides for note in getattr(side, "notes", ())]


def open_data(recipe: Recipe, config: RunConfig) -> RunData:
    """The rows of a recipe, in tokens of its first model."""
    tokenizer = load_tokenizer(model_directory(recipe, config))
    return RunData(tokenizer, *recipe.datasets(config, tokenizer))


def model_directory(recipe: Recipe, config: RunConfig) -> Path:
    """Where the description of the recipe's first model lies; its weights may be missing there."""
    model = next(iter(recipe.models(config).values())).model
    return resolve_model(model.path, model.commit, weights=False)
