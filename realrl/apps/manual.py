"""The manual of the command line: recipes, and every config key with its docstring."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, Protocol

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import ConfigKey, config_keys, describe, shown
from realrl.recipes.parts.config import PolicyConfig

USAGE = """\
usage: realrl [submit] RECIPE [--config FILE.yaml] [key.path=value ...] [--dry-run]
       realrl RECIPE --help [WORD ...]"""
OPTIONS = """\
  RECIPE              need not be given where the file names it; `submit` before it is for clusters
  --config FILE.yaml  overrides of the recipe's defaults
  key.path=value      overrides of single keys; these win over the file's
  --dry-run           print the config, the graph, the plan and the reallocations; start nothing
  -h, --help          print this; with a recipe, that recipe's keys alone; with words, keys that have one of
                      them in their path

`realrl --help` lists the other commands; `python -m realrl.apps.quickstart` is the same as `realrl train`."""
WIDTH = 110
SHARED = {"": RunConfig, " that trains": TrainingConfig, " that learns from rewards": PolicyConfig}
"""Whose keys several recipes have."""


class NamedConfig(Protocol):
    """What the manual needs of a recipe."""

    @property
    def name(self) -> str: ...

    @property
    def default_config(self) -> RunConfig: ...


def manual(recipes: Iterable[NamedConfig], words: Sequence[str] = ()) -> str:
    """Usage, the recipes, the keys that all of them share, and the keys of each; with `words`, only the keys
    that have one of them in their path.

    Raises:
        ValueError: no key has one of the words.
    """
    recipes = list(recipes)
    if words:
        return _keys_with(recipes, words)
    names = "\n".join(f"  {r.name:<18}  {summary(r.default_config)}" for r in recipes)
    parts = [USAGE, OPTIONS, "", "recipes:", names]
    shared: dict[str, Any] = {}
    for title, cls in SHARED.items():
        examples = [recipe.default_config for recipe in recipes if isinstance(recipe.default_config, cls)]
        if examples:
            keys = [key for key in config_keys(cls) if key.path not in shared]
            default = examples[0] if len(recipes) == 1 else None
            shared |= {key.path: default_of(default, key) for key in keys}
            parts += ["", f"keys of every recipe{title}:", _described(keys, default)]
    for recipe in recipes:
        every = config_keys(type(recipe.default_config))
        own = [key for key in every if _is_own(key, recipe, shared)]
        parts += ["", f"keys of {recipe.name}:", _described(own, recipe.default_config)]
    return "\n".join(parts) + "\n"


def _keys_with(recipes: Sequence[NamedConfig], words: Sequence[str]) -> str:
    parts = []
    for recipe in recipes:
        keys = config_keys(type(recipe.default_config))
        found = [key for key in keys if any(word in key.path for word in words)]
        if found:
            parts += [f"keys of {recipe.name}:", _described(found, recipe.default_config)]
    if not parts:
        names = ", ".join(recipe.name for recipe in recipes)
        raise ValueError(f"--help {' '.join(words)}: no key of {names} has this in its path")
    return "\n".join(parts) + "\n"


def _is_own(key: ConfigKey, recipe: NamedConfig, shared: Mapping[str, Any]) -> bool:
    """Whether a recipe has a key alone, or with another default than the others."""
    if key.path == "experiment":  # it differs by its nature
        return False
    return key.path not in shared or shared[key.path] != default_of(recipe.default_config, key)


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass and its bases, as the source has it."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> Iterable[tuple[str, str]]:
    definition = _classes_of(cls.__module__).get(cls.__name__)
    body = definition.body if definition else []
    for field, below in zip(body, body[1:]):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            yield field.target.id, inspect.cleandoc(str(below.value.value))


@functools.cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """The classes of a module, by name; parsed once, as `inspect.getsource` would do for each of them."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _described(keys: Iterable[ConfigKey], default: Any) -> str:
    return "\n".join(_entry(key, default) for key in keys)


def _entry(key: ConfigKey, default: Any) -> str:
    value = default_of(default, key)
    ending = "" if value is MISSING else f", default {shown(value)}"
    title = f"  {key.path}: {describe(key.hint)}{ending}"
    doc = field_docs(key.owner).get(key.name, "")
    indent = " " * 6
    return title + (
        "\n" + textwrap.fill(doc, WIDTH, initial_indent=indent, subsequent_indent=indent) if doc else ""
    )


def default_of(default: Any, key: ConfigKey) -> Any:
    """A key's value in a recipe's own defaults; the class's default where they have no such section."""
    value = default
    for name in key.path.split("."):
        value = getattr(value, name, None)
        if value is None:
            return key.default
    return value


def summary(config: RunConfig) -> str:
    """The first line of a config's docstring, which says what its recipe does."""
    return (inspect.getdoc(type(config)) or "").partition("\n")[0]
