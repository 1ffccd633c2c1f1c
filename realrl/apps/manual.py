"""The manual of the command line: recipes, and every config key with its docstring."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import ConfigKey, config_keys, describe, shown
from realrl.api.recipe import Recipe

USAGE = """\
usage: python -m realrl.apps.quickstart [submit] RECIPE [--config FILE.yaml] [key.path=value ...] [--dry-run]
       python -m realrl.apps.status RUN
       python -m realrl.apps.stacks RUN"""
OPTIONS = """\
  RECIPE              need not be given where the file names it; `submit` before it is for clusters
  RUN                 a run's directory, or EXPERIMENT/TRIAL below runs: what its workers do, and their stacks
  --config FILE.yaml  overrides of the recipe's defaults
  key.path=value      overrides of single keys; these win over the file's
  --dry-run           print the config, the graph, the plan and the reallocations; start nothing
  -h, --help          print this; with a recipe, that recipe's keys alone"""
WIDTH = 110
SHARED = {"": RunConfig, " that trains": TrainingConfig}
"""Whose keys several recipes have."""


def manual(recipes: Iterable[Recipe]) -> str:
    """Usage, the recipes, the keys that all of them share, and the keys of each."""
    recipes = list(recipes)
    names = "\n".join(f"  {r.name:<18}  {_summary(type(r.default_config))}" for r in recipes)
    parts = [USAGE, OPTIONS, "recipes:", names]
    shared: set[str] = set()
    for title, cls in SHARED.items():
        if any(isinstance(recipe.default_config, cls) for recipe in recipes):
            keys = [key for key in config_keys(cls) if key.path not in shared]
            shared |= {key.path for key in keys}
            parts += ["", f"keys of every recipe{title}:", _described(keys, None)]
    for index, recipe in enumerate(recipes):
        parts.append("")
        if kin := next((r for r in recipes[:index] if _extends(recipe, r)), None):
            parts.append(f"keys of {recipe.name}: those of {kin.name}, with the defaults")
            parts += [f"  {line}" for line in _differences(recipe.default_config, kin.default_config)]
            continue
        keys = config_keys(type(recipe.default_config))
        own = [key for key in keys if key.path not in shared]
        parts += [f"keys of {recipe.name}:", _described(own, recipe.default_config)]
    return "\n".join(parts) + "\n"


def _extends(recipe: Recipe, other: Recipe) -> bool:
    return isinstance(recipe.default_config, type(other.default_config))


def _differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """The keys of a config that differ from another's, as one would set them."""
    for field in fields(ours):
        own, other = (getattr(config, field.name, None) for config in (ours, theirs))
        here = f"{path}{field.name}"
        if is_dataclass(own) and is_dataclass(other):
            yield from _differences(own, other, f"{here}.")
        elif own != other:
            yield f"{here}={{}}" if is_dataclass(own) else f"{here}={shown(own)}"


def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass and its bases, as the source has it."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> Iterable[tuple[str, str]]:
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body
    for field, below in zip(body, body[1:]):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield field.target.id, inspect.cleandoc(str(below.value.value))


def _described(keys: Iterable[ConfigKey], default: Any) -> str:
    return "\n".join(_entry(key, default) for key in keys)


def _entry(key: ConfigKey, default: Any) -> str:
    value = _looked_up(default, key)
    ending = "" if value is MISSING else f", default {shown(value)}"
    title = f"  {key.path}: {describe(key.hint)}{ending}"
    doc = field_docs(key.owner).get(key.name, "")
    indent = " " * 6
    return title + (
        "\n" + textwrap.fill(doc, WIDTH, initial_indent=indent, subsequent_indent=indent) if doc else ""
    )


def _looked_up(default: Any, key: ConfigKey) -> Any:
    """What a recipe's own defaults say; the class's default where they have no such section."""
    value = default
    for name in key.path.split("."):
        value = getattr(value, name, None)
        if value is None:
            return key.default
    return value


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0]
