"""The keys of a config: their paths, their types in words, and their values as a user writes them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ANY_NAME = "NAME"
"""Stands in paths for a name that the user chooses."""
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Any: "a value",
}
_MANY = {int: "whole numbers", float: "numbers", str: "texts"}
_NUM_LISTED = 6
"""Keys of a section that a message lists."""
_MOST_SHOWN = 200
"""Characters of a value in a message."""


class ConfigKey(NamedTuple):
    """A key that a user can set."""

    path: str
    owner: type
    """The dataclass that has the field."""
    name: str
    hint: Any
    default: Any


def config_keys(cls: type[DataclassInstance], path: str = "", default: Any = None) -> Iterator[ConfigKey]:
    """Yield every key under a config class except its sections, in the order of the fields.

    `path` is the path of the section, `default` its default value.
    """
    hints = get_type_hints(cls)
    for field in fields(cls):
        name = field.name
        hint = hints[name]
        key_path = join_path(path, name)
        value = default_of(field, default)
        section = section_of(hint)
        if section is None:
            yield ConfigKey(key_path, cls, name, hint, value)
        elif is_mapping(hint):
            yield from config_keys(section, join_path(key_path, ANY_NAME))
        else:
            section_default = None if value is MISSING else value
            yield from config_keys(section, key_path, section_default)


def join_path(path: str, name: str) -> str:
    """Return the dotted path of `name` in the section at `path`."""
    return f"{path}.{name}" if path else name


def default_of(field: Field[Any], section_default: Any) -> Any:
    """Return the default of a field: that of its section if there is one, or MISSING without any."""
    if section_default is not None:
        return getattr(section_default, field.name)
    if field.default is not MISSING:
        return field.default
    if field.default_factory is not MISSING:
        return field.default_factory()
    return MISSING


def section_of(hint: Any) -> type[DataclassInstance] | None:
    """Return the dataclass that a field holds: by itself, or None, or one for each name."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    if not (is_union(hint) or is_mapping(hint)):
        return None
    for argument in get_args(hint):
        if isinstance(argument, type) and is_dataclass(argument):
            return argument
    return None


def is_union(hint: Any) -> bool:
    """Return whether a type is a union of types."""
    return get_origin(hint) in (Union, types.UnionType)


def is_mapping(hint: Any) -> bool:
    """Return whether a type is a mapping from names."""
    return get_origin(hint) is dict


def is_list(hint: Any) -> bool:
    """Return whether a type is a list or a tuple."""
    return get_origin(hint) in (tuple, list)


def describe(hint: Any) -> str:
    """Return a type in a user's words."""
    if hint in _WORDS:
        return _WORDS[hint]
    if is_dataclass(hint):
        names = [field.name for field in fields(hint)]
        return f"a section with the keys {_listed(names)}"
    arguments = get_args(hint)
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, arguments))
    if is_union(hint):
        return " or ".join(map(describe, arguments))
    if is_list(hint):
        items = _MANY.get(arguments[0]) or describe(arguments[0])
        return f"a list of {items}"
    if is_mapping(hint):
        return f"names, each with {describe(arguments[1])}"
    return str(hint)


def _listed(names: Sequence[str]) -> str:
    """Return all names, or some of them and how many more there are."""
    num_more = len(names) - _NUM_LISTED
    # To leave out a single name saves nothing.
    if num_more <= 1:
        return ", ".join(names)
    first_names = ", ".join(names[:_NUM_LISTED])
    return f"{first_names} and {num_more} more"


def shown(value: Any) -> str:
    """Return a value as a user would write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    if len(text) <= _MOST_SHOWN:
        return text
    return f"{text[:_MOST_SHOWN]}… ({len(text)} characters)"
