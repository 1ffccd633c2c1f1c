"""Builds a config out of a recipe's defaults, a YAML document and dotted overrides; the last one wins."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from realrl.api.config import Section
from realrl.api.documents import dump, load_mapping, load_value
from realrl.api.suggestions import suggested_key

Config = TypeVar("Config")

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Any: "a value",
}
_MANY = {int: "whole numbers", float: "numbers", str: "texts"}
_ANY_NAME = "NAME"
_NUM_LISTED = 6
"""Keys of a section that a message lists."""
_LARGEST_INT = 2**63
"""What messages to workers and tensors hold; seeds may be as large."""
_MOST_SHOWN = 200
"""Characters of a value in a message."""
_MOST_CHARS = 1 << 20
"""Characters of a config; what has more is none."""


class _Typed(NamedTuple):
    """An override's value: as written, and as YAML reads it."""

    text: str
    value: Any


class ConfigKey(NamedTuple):
    """A key that a person can set."""

    path: str
    owner: type
    """The dataclass that has the field."""
    name: str
    hint: Any
    default: Any


def build_config(
    default: Config,
    source: Path | str | None = None,
    overrides: Sequence[str] = (),
    *,
    recipe: str | None = None,
) -> Config:
    """`default`, changed by `source` (a YAML file's path, or YAML text) and then by `key.path=value`.

    A document may say `recipe: NAME`; with `recipe` given, it must be that one.

    Raises:
        ValueError: an unreadable file, an unknown key or a value that does not fit, with its dotted path.
    """
    given = _read(source)
    _check_recipe(given.pop("recipe", recipe), recipe)
    for override in overrides:
        _insert(given, override)
    _check_colons(given, "")
    known = {key.path: key for key in config_keys(type(default))}
    manual = f"`realrl {recipe} --help`" if recipe else "the recipe's --help"
    return _Builder(known, manual).build(type(default), given, default, "")


def recipe_of(source: Path | str) -> str | None:
    """The recipe that a document names, if it does.

    Raises:
        ValueError: an unreadable file.
    """
    named = _read(source).get("recipe")
    return None if named is None else str(named)


def replaced_overrides(overrides: Sequence[str]) -> list[tuple[str, str]]:
    """Overrides of which nothing, or not all, counts, each with a later one that sets the same."""
    found = []
    leaves = [(override, _leaves_of(override)) for override in overrides]
    for index, (earlier, keys) in enumerate(leaves):
        for later, later_keys in leaves[index + 1 :]:
            pairs = ((key, other) for key in keys for other in later_keys)
            if any(_is_same_or_within(key, other) for key, other in pairs):
                found.append((earlier, later))
                break
    return found


def _leaves_of(override: str) -> list[str]:
    """Dotted keys to which an override gives a value; an empty section gives none."""
    tree: dict[str, Any] = {}
    _insert(tree, override)
    return list(_leaves(tree, ""))


def _leaves(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        yield from _leaves(inner, _joined(path, name))


def _is_same_or_within(key: str, other: str) -> bool:
    """Whether of two keys one is the other, or a section that has it."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


def dump_config(config: Any, *, recipe: str | None = None) -> str:
    """YAML that `build_config` reads back as an equal config."""
    document = {"recipe": recipe} if recipe else {}
    return dump({**document, **plain(config)})


def sections(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A config and every section within it, by dotted path."""
    yield path, config
    for field in fields(config):
        inner = getattr(config, field.name)
        if is_dataclass(inner):
            yield from sections(inner, _joined(path, field.name))


def config_keys(cls: type, path: str = "", default: Any = None) -> Iterator[ConfigKey]:
    """Every key under a config class, sections left out, in the order of the fields."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        here, hint = _joined(path, field.name), hints[field.name]
        value = _default_of(field, default)
        section = _section_of(hint)
        if section is None:
            yield ConfigKey(here, cls, field.name, hint, value)
            continue
        if get_origin(hint) is dict:
            here, value = _joined(here, _ANY_NAME), None
        yield from config_keys(section, here, None if value is MISSING else value)


def describe(hint: Any) -> str:
    """A type in a person's words."""
    if hint in _WORDS:
        return _WORDS[hint]
    if is_dataclass(hint):
        return f"a section with the keys {_listed([field.name for field in fields(hint)])}"
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin in (tuple, list):
        return f"a list of {_MANY.get(arguments[0]) or describe(arguments[0])}"
    if origin is dict:
        return f"names, each with {describe(arguments[1])}"
    return str(hint)


def _listed(names: Sequence[str]) -> str:
    """Names, or some of them and how many more there are."""
    more = len(names) - _NUM_LISTED
    shortened = f"{', '.join(names[:_NUM_LISTED])} and {more} more"
    return shortened if more > 1 else ", ".join(names)


def shown(value: Any) -> str:
    """A value as a person would write it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text)} characters)"


@dataclass(frozen=True)
class _Builder:
    """Turns nested mappings into nested dataclasses."""

    known: Mapping[str, ConfigKey]
    """Every dotted key, to suggest from."""
    manual: str
    """Where all keys are explained."""

    def build(self, hint: Any, given: Any, default: Any, path: str) -> Any:
        value = given.value if isinstance(given, _Typed) else given
        if get_origin(hint) in (Union, types.UnionType):
            is_text = isinstance(given, _Typed) and given.text == "" and str in get_args(hint)
            if value is None and type(None) in get_args(hint) and not is_text:
                return None
            if (section := _section_of(hint)) is not None:
                hint = section
        if is_dataclass(hint):
            return self._section(hint, value, default, path)
        if get_origin(hint) is dict:
            return self._named(hint, value, default or {}, path)
        return _leaf(hint, given, path)

    def _section(self, cls: type, given: Any, default: Any, path: str) -> Any:
        if not isinstance(given, Mapping):
            raise _unfit(path, cls, given)
        given = _without_fixed(cls, given, path)
        hints, values = get_type_hints(cls), {}
        if unknown := [key for key in given if key not in hints]:
            raise self._unknown(unknown[0], list(hints), path)
        for field in fields(cls):
            here, value = _joined(path, field.name), _default_of(field, default)
            if field.name in given:
                current = None if value is MISSING else value
                value = self.build(hints[field.name], given[field.name], current, here)
            if value is MISSING:
                raise ValueError(f"{here}: missing; expected {describe(hints[field.name])}")
            values[field.name] = value
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(_prefixed(str(error), list(hints), path)) from None

    def _named(self, hint: Any, given: Any, default: Mapping, path: str) -> dict:
        if not isinstance(given, Mapping):
            raise _unfit(path, hint, given)
        inner = get_args(hint)[1]
        changed = {
            name: self.build(inner, v, default.get(name), _joined(path, name)) for name, v in given.items()
        }
        return {**default, **changed}

    def _unknown(self, key: str, names: list[str], path: str) -> ValueError:
        here = _joined(path, key)
        if here in self.known:
            return ValueError(f"{here}: a file has its keys nested; write it as `{_nested(key)}`")
        nearest = suggested_key(here, names, self.known)
        hint = f"did you mean {nearest}{self._kind(nearest)}? Every" if nearest else "every"
        return ValueError(f"{here}: unknown key; {hint} key is in {self.manual}")

    def _kind(self, path: str) -> str:
        """What a key takes, as the end of its name."""
        return f" ({describe(self.known[path].hint)})" if path in self.known else ""


def _without_fixed(cls: type, given: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    """Return what is given of a section, less the keys that say what its algorithm does anyway.

    Raises:
        ValueError: such a key has another value.
    """
    own = {field.name for field in fields(cls)}
    former = cls.FIXED if issubclass(cls, Section) else {}
    fixed = {key: value for key, value in former.items() if key not in own}
    for key in fixed.keys() & given.keys():
        value = given[key].value if isinstance(given[key], _Typed) else given[key]
        if value not in fixed[key].values:
            raise ValueError(
                f"{_joined(path, key)}: this recipe has no such key, as it always is"
                f" {shown(fixed[key].values[0])}, got {shown(value)}; {fixed[key].instead}"
            )
    return {key: value for key, value in given.items() if key not in fixed}


def _nested(dotted: str) -> str:
    """A dotted key as a file has it."""
    first, _, rest = dotted.partition(".")
    return f"{first}: {{{_nested(rest)}}}" if rest else f"{first}: ..."


def _read(source: Path | str | None) -> dict[str, Any]:
    if source is None:
        return {}
    if isinstance(source, str):
        return load_mapping(source, "config")
    return load_mapping(_text_of(source), str(source))


def _text_of(file: Path) -> str:
    """What a config file or a pipe has; not more than a config may have, as some files have no end."""
    try:
        with file.open(encoding="utf-8-sig") as content:
            text = content.read(_MOST_CHARS + 1)
    except UnicodeDecodeError:
        raise ValueError(f"{file}: expected a YAML file in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ValueError(f"{file}: cannot be read: {reason}; give the path of a YAML file") from None
    if len(text) > _MOST_CHARS:
        raise ValueError(f"{file}: expected a YAML file, got more than {_MOST_CHARS} characters")
    return text


def _check_recipe(named: Any, recipe: str | None) -> None:
    if recipe is not None and named != recipe:
        raise ValueError(f"recipe: expected {recipe!r}, as on the command line, got {named!r} in the file")


def _insert(tree: dict[str, Any], override: str) -> None:
    """Put one `a.b=value` into the tree of given values."""
    key, sign, text = override.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise ValueError(f"{override!r}: expected key=value with a dotted key, as batch_size=16")
    new: Any = _typed(text.strip())
    for name in reversed(path):
        new = {name: new}
    _merge(tree, new)


def _typed(text: str) -> Any:
    try:
        value = load_value(text)
    except yaml.YAMLError:
        value = text
    return value if isinstance(value, dict) else _Typed(text, value)


def _merge(tree: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _check_colons(tree: Mapping[str, Any], path: str) -> None:
    """Refuse `{name:value}`, which YAML reads as one name without a value."""
    for key, value in tree.items():
        here, (name, _, rest) = _joined(path, key), key.partition(":")
        if value is None and name and rest:
            raise ValueError(
                f"{here}: expected a space after the colon, got `{key}`; write it as `{name}: {rest}`"
            )
        if isinstance(value, Mapping):
            _check_colons(value, here)


def _leaf(hint: Any, given: Any, path: str) -> Any:
    value = _value_of(hint, given) if isinstance(given, _Typed) else given
    # A list of texts or names that has but one may be given as that.
    is_one = get_origin(hint) is tuple and isinstance(value, str)
    try:
        found = msgspec.convert([value] if is_one else value, hint)
    except msgspec.ValidationError:
        if isinstance(given, _Typed) and not given.text:
            raise ValueError(f"{path}: expected {describe(hint)}, got nothing after the =") from None
        raise _unfit(path, hint, value) from None
    if isinstance(found, float) and not math.isfinite(found):
        raise _unfit(path, hint, value)
    if isinstance(found, int) and abs(found) > _LARGEST_INT:
        raise ValueError(f"{path}: expected a number of at most 64 bits, got {shown(found)}")
    return found


def _unfit(path: str, hint: Any, got: Any) -> ValueError:
    return ValueError(f"{path}: expected {describe(hint)}, got {shown(got)}")


def _value_of(hint: Any, given: _Typed) -> Any:
    """An override's value, for a key of some type: text as it is written, and nothing as no text or item."""
    if given.text == "":
        if get_origin(hint) in (tuple, list):
            return []
        if str in (hint, *get_args(hint)):
            return ""
    as_written = hint is str and not isinstance(given.value, str)
    return given.text if as_written else given.value


def _section_of(hint: Any) -> type | None:
    """The dataclass that a field's type holds: itself, or None, or one a name."""
    if is_dataclass(hint):
        return hint
    if get_origin(hint) in (Union, types.UnionType, dict):
        return next((argument for argument in get_args(hint) if is_dataclass(argument)), None)
    return None


def _default_of(field: Field, default: Any) -> Any:
    if default is not None:
        return getattr(default, field.name)
    if field.default is not MISSING:
        return field.default
    return MISSING if field.default_factory is MISSING else field.default_factory()


def _prefixed(message: str, names: list[str], path: str) -> str:
    """A dataclass's own complaint, which may begin with a field's name, with the path to that dataclass."""
    if not path:
        return message
    begins_with_field = message.split(maxsplit=1)[0].rstrip(":").split(".")[0] in names
    return f"{path}.{message}" if begins_with_field else f"{path}: {message}"


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def plain(value: Any) -> Any:
    """A config, or a value in one, as what YAML has: mappings, lists and plain values."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
