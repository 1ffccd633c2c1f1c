"""A run's settings by dotted key, and those that differ from its recipe's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.api.configure import dump_config
from realrl.api.documents import load_mapping
from realrl.recipes import RECIPES
from realrl.runtime.run_files import CONFIG


def read_settings(directory: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of a run, and notes on files that could not be read."""
    path = directory / CONFIG
    try:
        text = path.read_text(encoding="utf-8")
        document = load_mapping(text, str(path))
    except FileNotFoundError:
        return {}, [f"{CONFIG} is missing"]
    except (OSError, ValueError) as error:
        return {}, [f"{CONFIG} cannot be read: {error}"]
    return flattened(document), []


def changed(settings: Mapping[str, Any]) -> list[str]:
    """Return the keys that differ from this version's defaults of the recipe."""
    recipe = settings.get("recipe")
    if not isinstance(recipe, str) or recipe not in RECIPES:
        return []
    default_config = RECIPES[recipe].default_config
    # Through YAML, so that both have the same types.
    document = load_mapping(dump_config(default_config), "defaults")
    defaults = flattened(document)
    found = []
    for key, value in settings.items():
        if key != "recipe" and defaults.get(key) != value:
            found.append(key)
    return found


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key; an empty section is a value."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, Mapping) and inner:
            found |= flattened(inner, f"{path}.")
        else:
            found[path] = inner
    return found
