"""Overrides of single keys, as on a command line: `key.path=value`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from realrl.api.config_keys import join_path
from realrl.api.documents import load_value


class Written(NamedTuple):
    """The value of an override: as it is written, and as YAML reads it."""

    text: str
    value: Any


def insert_override(tree: dict[str, Any], override: str) -> None:
    """Insert one `a.b=value` into a tree of given values.

    Raises:
        ValueError: the override has no key, or no value.
    """
    key, sign, text = override.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise ValueError(f"{override!r}: expected key=value with a dotted key, as batch_size=16")
    new = _read(text.strip())
    for name in reversed(path):
        new = {name: new}
    _merge(tree, new)


def _read(text: str) -> Any:
    """Return a section that is written in full as a mapping, any other value as `Written`."""
    value: Any = text
    try:
        value = load_value(text)
    except yaml.YAMLError:
        # Text needs no quotes on a command line.
        pass
    return value if isinstance(value, dict) else Written(text, value)


def _merge(tree: dict[str, Any], new: Mapping[str, Any]) -> None:
    """Write the values of `new` into `tree`; sections are merged."""
    for key, value in new.items():
        current = tree.get(key)
        if isinstance(value, dict) and isinstance(current, dict):
            _merge(current, value)
        else:
            tree[key] = value


def replaced_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Return the overrides that a later one replaces, fully or in part, each with the first such one."""
    replaced = []
    keys = [_keys_of(override) for override in overrides]
    for index, earlier in enumerate(overrides):
        for later in range(index + 1, len(overrides)):
            if _overlap(keys[index], keys[later]):
                replaced.append((earlier, overrides[later]))
                break
    return replaced


def _keys_of(override: str) -> list[str]:
    """Return the dotted keys to which an override gives a value; an empty section gives none."""
    tree: dict[str, Any] = {}
    insert_override(tree, override)
    return list(_leaves(tree, ""))


def _leaves(value: Any, path: str) -> Iterator[str]:
    """Yield the dotted keys of all values in a tree."""
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        yield from _leaves(inner, join_path(path, name))


def _overlap(keys: Sequence[str], others: Sequence[str]) -> bool:
    """Return whether any of `keys` and any of `others` set the same value."""
    for key in keys:
        if any(_is_same_or_within(key, other) for other in others):
            return True
    return False


def _is_same_or_within(key: str, other: str) -> bool:
    """Return whether two keys are equal, or one is in the other's section."""
    if key == other:
        return True
    return key.startswith(f"{other}.") or other.startswith(f"{key}.")
