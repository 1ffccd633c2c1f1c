"""A run's settings by dotted key, and which of them are not its recipe's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.api.configure import dump_config
from realrl.api.documents import load_mapping
from realrl.recipes import RECIPES
from realrl.runtime.run_files import CONFIG


def read_settings(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """The settings of a run, and notes on what could not be read."""
    path = directory / CONFIG
    try:
        return flattened(load_mapping(path.read_text(encoding="utf-8"), str(path))), []
    except FileNotFoundError:
        return {}, [f"{CONFIG} is missing"]
    except (OSError, ValueError) as error:
        return {}, [f"{CONFIG} cannot be read: {error}"]


def changed(settings: Mapping[str, Any]) -> list[str]:
    """The keys that differ from this version's defaults of the recipe."""
    recipe = settings.get("recipe")
    if recipe not in RECIPES:
        return []
    document = load_mapping(dump_config(RECIPES[recipe].default_config), "defaults")
    defaults = flattened(document)
    return [key for key, value in settings.items() if key != "recipe" and defaults.get(key) != value]


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by dotted key; an empty section is a leaf."""
    found = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            found |= flattened(inner, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = inner
    return found
