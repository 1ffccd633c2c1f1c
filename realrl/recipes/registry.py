"""Finds a recipe: one of ours by its name, or a user's own by its path."""

from __future__ import annotations

from dataclasses import replace

from realrl.api.recipe import Recipe
from realrl.base.spelling import did_you_mean
from realrl.base.user_code import is_reference, load_user_object
from realrl.recipes import RECIPES


def find_recipe(name: str | None) -> Recipe:
    """Return the recipe of this name, or the one that `path/to/file.py:NAME` defines, under that name.

    Raises:
        ValueError: there is none, or the file cannot be loaded.
    """
    if name is not None and name in RECIPES:
        return RECIPES[name]
    if name is None or not is_reference(name):
        got = "none" if name is None else repr(name)
        hint = did_you_mean(name or "", RECIPES)
        raise ValueError(
            f"recipe: expected one of {', '.join(RECIPES)}, or a path/to/file.py:RECIPE, got {got}{hint}"
        )
    found = load_user_object("recipe", name, "recipe")
    if not isinstance(found, Recipe):
        raise ValueError(
            f"recipe: {name} is a {type(found).__name__}, expected a Recipe, as realrl.api.recipe has it"
        )
    return replace(found, name=name)


def is_recipe(word: str) -> bool:
    """Whether a word of the command line names a recipe, ours or a user's own."""
    return word in RECIPES or is_reference(word)
