"""Recipes by name: their configs at once, their bodies when a run needs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

from realrl.api.config import RunConfig
from realrl.api.recipe import Recipe


@dataclass(frozen=True)
class RecipeEntry:
    """What is known of a recipe before its bodies are imported, which takes seconds because of torch."""

    name: str
    default_config: RunConfig
    place: str
    """Where the `Recipe` is, as `module:NAME`."""

    def load(self) -> Recipe:
        """The recipe, under this name and with this config."""
        module, _, attribute = self.place.partition(":")
        recipe = getattr(import_module(module), attribute)
        return replace(recipe, name=self.name, default_config=self.default_config)


class RecipeTable(Mapping[str, Recipe]):
    """Recipes by name; looking one up imports it."""

    def __init__(self, *entries: RecipeEntry) -> None:
        self.entries = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Recipe:
        return self.entries[name].load()

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
