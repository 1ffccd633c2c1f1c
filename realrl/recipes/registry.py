"""Finds a recipe: one of ours by its name, or a user's own by its path."""

from __future__ import annotations

from dataclasses import replace

from realrl.api.recipe import Recipe
from realrl.base.spelling import did_you_mean
from realrl.base.user_files import is_file_reference, load_from_file
from realrl.recipes import RECIPES


def find_recipe(name: str | None) -> Recipe:
    """Return the recipe of this name, or the one that `path/to/file.py:NAME` defines, under that name.

    Raises:
        ValueError: there is none, or the file cannot be loaded.
    """
    if name is not None and name in RECIPES:
        return RECIPES[name]
    if name is None or not is_file_reference(name):
        got = "none" if name is None else repr(name)
        hint = did_you_mean(name or "", RECIPES)
        raise ValueError(
            f"recipe: expected one of {', '.join(RECIPES)}, or a path/to/file.py:RECIPE, got {got}{hint}"
        )
    found = load_from_file(name, setting="recipe", what="Recipe", fits=_is_recipe)
    assert isinstance(found, Recipe), "load_from_file returns what fits"
    return replace(found, name=name)


def is_recipe(word: str) -> bool:
    """Whether a word of the command line names a recipe, ours or a user's own."""
    return word in RECIPES or is_file_reference(word)


def _is_recipe(value: object) -> bool:
    return isinstance(value, Recipe)
