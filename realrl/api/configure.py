"""Builds a config from a recipe's defaults, a YAML document and dotted overrides, each over those before.

recipe's defaults ──▶ YAML document ──▶ key.path=value ... ──▶ config ──▶ dump_config ──▶ YAML document
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from realrl.api.config import Section
from realrl.api.config_keys import (
    ConfigKey,
    config_keys,
    default_of,
    describe,
    is_list,
    is_mapping,
    is_union,
    join_path,
    section_of,
    shown,
)
from realrl.api.documents import dump, load_mapping
from realrl.api.overrides import Written, insert_override
from realrl.api.suggestions import suggested_key

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")

_LARGEST_INT = 2**63
"""Limit of numbers in messages to workers and in tensors; seeds may be as large."""
_MOST_CHARS = 1 << 20
"""Characters of a config; a file with more is not one."""


def build_config(
    default: Config,
    source: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    recipe: str | None = None,
) -> Config:
    """Return `default`, changed by `source` (a YAML file's path, or YAML text), then by `key.path=value`.

    A document may say `recipe: NAME`; with `recipe` given, it must be that one.

    Raises:
        ValueError: an unreadable file, an unknown key or a value that does not fit, with its dotted path.
    """
    given = _read(source)
    named = given.pop("recipe", recipe)
    _check_recipe(named, recipe)
    for override in overrides:
        insert_override(given, override)
    _check_colons(given, "")
    known = {key.path: key for key in config_keys(type(default))}
    manual = f"`realrl {recipe} --help`" if recipe else "the recipe's --help"
    builder = _Builder(known, manual)
    config: Config = builder.build(type(default), given, default, "")
    return config


def recipe_of(source: Path | str) -> str | None:
    """Return the recipe that a document names, if it does.

    Raises:
        ValueError: an unreadable file.
    """
    named = _read(source).get("recipe")
    return None if named is None else str(named)


def dump_config(config: DataclassInstance, *, recipe: str | None = None) -> str:
    """Return YAML that `build_config` reads back as an equal config."""
    document = {"recipe": recipe} if recipe else {}
    document.update(plain(config))
    return dump(document)


def sections(config: DataclassInstance, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a config and every section in it, each with its dotted path."""
    yield path, config
    for field in fields(config):
        inner = getattr(config, field.name)
        if is_dataclass(inner) and not isinstance(inner, type):
            inner_path = join_path(path, field.name)
            yield from sections(inner, inner_path)


def plain(value: Any) -> Any:
    """Return a config, or a value in one, as YAML has it: mappings, lists and plain values."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


@dataclass(frozen=True)
class _Builder:
    """Turns nested mappings into nested dataclasses."""

    known: Mapping[str, ConfigKey]
    """Every dotted key, to suggest from."""
    manual: str
    """Where all keys are explained."""

    def build(self, hint: Any, given: Any, default: Any, path: str) -> Any:
        """Return the value of type `hint` at `path`: `given`, and `default` where nothing is given."""
        value = given.value if isinstance(given, Written) else given
        if is_union(hint):
            if value is None and _means_none(hint, given):
                return None
            hint = section_of(hint) or hint
        if is_dataclass(hint):
            assert isinstance(hint, type), "a type hint is a class"
            return self._section(hint, value, default, path)
        if is_mapping(hint):
            return self._by_name(hint, value, default or {}, path)
        return _leaf(hint, given, path)

    def _section(self, cls: type[DataclassInstance], given: Any, default: Any, path: str) -> Any:
        """Return the dataclass `cls` of the values in a mapping."""
        if not isinstance(given, Mapping):
            raise _unfit(path, cls, given)
        given = _without_fixed(cls, given, path)
        hints = get_type_hints(cls)
        names = list(hints)
        for key in given:
            if key not in hints:
                raise self._unknown(key, names, path)
        values = {}
        for field in fields(cls):
            name = field.name
            key_path = join_path(path, name)
            value = default_of(field, default)
            if name in given:
                current = None if value is MISSING else value
                value = self.build(hints[name], given[name], current, key_path)
            if value is MISSING:
                raise ValueError(f"{key_path}: missing; expected {describe(hints[name])}")
            values[name] = value
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(_prefixed(str(error), names, path)) from None

    def _by_name(self, hint: Any, given: Any, default: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Return a mapping from names: the default's entries, and those given over them."""
        if not isinstance(given, Mapping):
            raise _unfit(path, hint, given)
        _, value_hint = get_args(hint)
        values = dict(default)
        for name, value in given.items():
            current = default.get(name)
            values[name] = self.build(value_hint, value, current, join_path(path, name))
        return values

    def _unknown(self, key: str, names: list[str], path: str) -> ValueError:
        """Return the error about a key that a section does not have."""
        key_path = join_path(path, key)
        if key_path in self.known:
            return ValueError(f"{key_path}: a file has its keys nested; write it as `{_nested(key)}`")
        nearest = suggested_key(key_path, names, self.known)
        hint = f"did you mean {nearest}{self._kind(nearest)}? Every" if nearest else "every"
        return ValueError(f"{key_path}: unknown key; {hint} key is in {self.manual}")

    def _kind(self, path: str) -> str:
        """Return what a key takes, as the end of its name; empty for a section."""
        if path not in self.known:
            return ""
        hint = self.known[path].hint
        return f" ({describe(hint)})"


def _without_fixed(cls: type[DataclassInstance], given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return what is given of a section, except the keys that say what its algorithm does anyway.

    Raises:
        ValueError: such a key has another value.
    """
    former = cls.FIXED if issubclass(cls, Section) else {}
    own = {field.name for field in fields(cls)}
    kept = dict(given)
    for key, fixed in former.items():
        if key in own or key not in given:
            continue
        value = kept.pop(key)
        if isinstance(value, Written):
            value = value.value
        if value not in fixed.values:
            always = shown(fixed.values[0])
            raise ValueError(
                f"{join_path(path, key)}: this recipe has no such key, as it always is {always}, got"
                f" {shown(value)}; {fixed.instead}"
            )
    return kept


def _nested(dotted: str) -> str:
    """Return a dotted key as a file has it."""
    first, _, rest = dotted.partition(".")
    if not rest:
        return f"{first}: ..."
    return f"{first}: {{{_nested(rest)}}}"


def _read(source: Path | str | None) -> dict[str, Any]:
    """Return what a YAML file or a YAML text gives."""
    if source is None:
        return {}
    if isinstance(source, str):
        return load_mapping(source, "config")
    text = _text_of(source)
    return load_mapping(text, str(source))


def _text_of(file: Path) -> str:
    """Return the text of a config file or a pipe, but no more than a config may have: some have no end."""
    try:
        with file.open(encoding="utf-8-sig") as content:
            text = content.read(_MOST_CHARS + 1)
    except UnicodeDecodeError:
        raise ValueError(f"{file}: expected a YAML file in UTF-8") from None
    except (OSError, ValueError) as error:
        # A path with a null byte is a ValueError.
        reason = getattr(error, "strerror", error)
        raise ValueError(f"{file}: cannot be read: {reason}; give the path of a YAML file") from None
    if len(text) > _MOST_CHARS:
        raise ValueError(f"{file}: expected a YAML file, got more than {_MOST_CHARS} characters")
    return text


def _check_recipe(named: Any, recipe: str | None) -> None:
    """Check that a document is for the recipe of the command line."""
    if recipe is not None and named != recipe:
        raise ValueError(f"recipe: expected {recipe!r}, as on the command line, got {named!r} in the file")


def _check_colons(tree: Mapping[str, Any], path: str) -> None:
    """Refuse `{name:value}`, which YAML reads as one name without a value."""
    for key, value in tree.items():
        key_path = join_path(path, key)
        if isinstance(value, Mapping):
            _check_colons(value, key_path)
        if value is not None:
            continue
        name, _, rest = key.partition(":")
        if name and rest:
            raise ValueError(
                f"{key_path}: expected a space after the colon, got `{key}`; write it as `{name}: {rest}`"
            )


def _means_none(hint: Any, given: Any) -> bool:
    """Return whether a null is None for a key of this type, and not empty text."""
    choices = get_args(hint)
    if type(None) not in choices:
        return False
    is_empty_text = isinstance(given, Written) and given.text == "" and str in choices
    return not is_empty_text


def _leaf(hint: Any, given: Any, path: str) -> Any:
    """Return a value that is no section, checked by its type."""
    value = _value_of(hint, given) if isinstance(given, Written) else given
    # A list of texts or names may be given as its only item.
    is_only_item = get_origin(hint) is tuple and isinstance(value, str)
    try:
        found = msgspec.convert([value] if is_only_item else value, hint)
    except msgspec.ValidationError:
        if isinstance(given, Written) and not given.text:
            raise ValueError(f"{path}: expected {describe(hint)}, got nothing after the =") from None
        raise _unfit(path, hint, value) from None
    if isinstance(found, float) and not math.isfinite(found):
        raise _unfit(path, hint, value)
    if isinstance(found, int) and abs(found) > _LARGEST_INT:
        raise ValueError(f"{path}: expected a number of at most 64 bits, got {shown(found)}")
    return found


def _unfit(path: str, hint: Any, got: Any) -> ValueError:
    """Return the error about a value that is not of the type of its key."""
    return ValueError(f"{path}: expected {describe(hint)}, got {shown(got)}")


def _value_of(hint: Any, given: Written) -> Any:
    """Return an override's value for a key of type `hint`.

    A text is taken as it is written. Nothing is an empty text or an empty list.
    """
    if given.text == "":
        if is_list(hint):
            return []
        if str in (hint, *get_args(hint)):
            return ""
    if hint is str and not isinstance(given.value, str):
        return given.text
    return given.value


def _prefixed(message: str, names: list[str], path: str) -> str:
    """Return a dataclass's own message, which may begin with a field's name, with the dataclass's path."""
    if not path:
        return message
    first_word = message.split(maxsplit=1)[0]
    first_name = first_word.rstrip(":").split(".")[0]
    if first_name in names:
        return f"{path}.{message}"
    return f"{path}: {message}"
