"""The manual of the command line: recipes, and every config key with its docstring."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from typing import Any, Protocol

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.config_keys import ConfigKey, config_keys, describe, shown
from realrl.recipes.parts.config import AdvantageConfig, PolicyConfig

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
SHARED = {
    "": RunConfig,
    " that trains": TrainingConfig,
    " that learns from rewards": PolicyConfig,
    " that learns from advantages": AdvantageConfig,
}
"""Classes of keys that several recipes have, by the end of the title over them."""
_INDENT = " " * 6


class NamedConfig(Protocol):
    """The part of a recipe that the manual needs."""

    @property
    def name(self) -> str:
        """The recipe's name."""

    @property
    def default_config(self) -> RunConfig:
        """The recipe's defaults."""


def manual(recipes: Iterable[NamedConfig], words: Sequence[str] = ()) -> str:
    """Return usage, recipes, the keys that all recipes share, and the keys of each.

    With `words`, only keys with one of the words in their path.

    Raises:
        ValueError: no key has one of the words.
    """
    recipes = list(recipes)
    if words:
        return _keys_with(recipes, words)
    parts = [USAGE, OPTIONS, "", "recipes:"]
    for recipe in recipes:
        parts.append(f"  {recipe.name:<18}  {summary(recipe.default_config)}")
    shared: dict[str, Any] = {}
    for title, cls in SHARED.items():
        examples = [recipe.default_config for recipe in recipes if isinstance(recipe.default_config, cls)]
        if not examples:
            continue
        keys = [key for key in config_keys(cls) if key.path not in shared]
        # Recipes may have other defaults than the class.
        default = examples[0] if len(recipes) == 1 else None
        shared.update({key.path: default_of(default, key) for key in keys})
        parts += ["", f"keys of every recipe{title}:", _described(keys, default)]
    for recipe in recipes:
        every = config_keys(type(recipe.default_config))
        own = [key for key in every if _is_own(key, recipe, shared)]
        parts += ["", f"keys of {recipe.name}:", _described(own, recipe.default_config)]
    return "\n".join(parts) + "\n"


def _is_own(key: ConfigKey, recipe: NamedConfig, shared: Mapping[str, Any]) -> bool:
    """Return whether a recipe alone has a key, or has another default for it than the others."""
    if key.path == "experiment":  # it differs by its nature
        return False
    return key.path not in shared or shared[key.path] != default_of(recipe.default_config, key)


def _keys_with(recipes: Sequence[NamedConfig], words: Sequence[str]) -> str:
    """Return the keys of each recipe with one of the words in their path."""
    parts = []
    for recipe in recipes:
        default = recipe.default_config
        found = []
        for key in config_keys(type(default)):
            if any(word in key.path for word in words):
                found.append(key)
        if found:
            parts += [f"keys of {recipe.name}:", _described(found, default)]
    if not parts:
        names = ", ".join(recipe.name for recipe in recipes)
        raise ValueError(f"--help {' '.join(words)}: no key of {names} has this in its path")
    return "\n".join(parts) + "\n"


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the string under each field of a dataclass and its bases, as the source has it."""
    docs: dict[str, str] = {}
    classes = cls.__mro__[:-1]
    # From the base on: the nearest class wins.
    for base in reversed(classes):
        docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> Iterator[tuple[str, str]]:
    """Yield the names of a class's own fields, each with the string under it."""
    definition = _classes_of(cls.__module__).get(cls.__name__)
    body = definition.body if definition else []
    for field, below in zip(body, body[1:]):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = str(below.value.value)
            yield field.target.id, inspect.cleandoc(text)


@functools.cache
def _classes_of(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module, by name.

    The module is parsed once, while `inspect.getsource` would parse it for each class.
    """
    source = inspect.getsource(sys.modules[module])
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = node
    return found


def _described(keys: Iterable[ConfigKey], default: RunConfig | None) -> str:
    """Return the entries of keys; `default` has their values in a recipe."""
    entries = [_entry(key, default) for key in keys]
    return "\n".join(entries)


def _entry(key: ConfigKey, default: RunConfig | None) -> str:
    """Return a key with its type and default, over its docstring."""
    title = f"  {key.path}: {describe(key.hint)}"
    value = default_of(default, key)
    if value is not MISSING:
        title += f", default {shown(value)}"
    doc = field_docs(key.owner).get(key.name, "")
    if not doc:
        return title
    text = textwrap.fill(
        doc,
        WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
    )
    return f"{title}\n{text}"


def default_of(default: RunConfig | None, key: ConfigKey) -> Any:
    """Return a key's value in a recipe's defaults, or the class's default if they have no such section."""
    value: Any = default
    for name in key.path.split("."):
        value = getattr(value, name, None)
        if value is None:
            return key.default
    return value


def summary(config: RunConfig) -> str:
    """Return the first line of a config's docstring, which says what its recipe does."""
    doc = inspect.getdoc(type(config)) or ""
    return doc.partition("\n")[0]
