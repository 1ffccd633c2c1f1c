"""Reads and writes YAML with the plain values of its version 1.2: `1e-5` is a number, `no` is text.

Source: https://yaml.org/spec/1.2.2/, section 10.3 (the core schema).
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_INT = r"[-+]?(?:0|[1-9][0-9_]*)"
_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_PLAIN = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
)


_MOST_DEPTH = 32
"""Nested lists and mappings; no config has half as many."""


class _Unfit(yaml.MarkedYAMLError):
    """YAML that is none of a config, where quotes would not help."""


class _Loader(yaml.SafeLoader):
    """Also refuses a key that is given twice, a key that is no text, aliases, tags and great depth."""

    yaml_implicit_resolvers: dict = {}
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not for configs", problem_mark=event.start_mark)
        if event.tag is not None:
            problem = f"tags as {event.tag} are not for configs"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        if self._depth == _MOST_DEPTH:
            problem = f"it is nested more than {_MOST_DEPTH} levels deep"
            raise _Unfit(problem=problem, problem_mark=event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError:
            # Python reads whole numbers of up to 4300 digits.
            problem = f"{len(node.value)} digits are too many for a number"
            raise _Unfit(problem=problem, problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _Unfit(problem=f"expected a name, got {key!r}", problem_mark=key_node.start_mark)
            if key in seen:
                raise _Unfit(problem=f"{key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what `_Loader` would not take for text; writes no aliases."""

    yaml_implicit_resolvers: dict = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _PLAIN:
    for _class in (_Loader, _Dumper):
        _letters = [*_first, ""] if _tag == "null" else list(_first)
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _letters)


def load_value(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, _Loader)


def load_mapping(text: str, name: str) -> dict[str, Any]:
    """The mapping in a YAML document; `name` stands for it in messages.

    Raises:
        ValueError: it is not YAML, or no mapping.
    """
    try:
        value = load_value(text)
    except yaml.YAMLError as error:
        raise ValueError(_explained(error, name, text)) from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a mapping as `batch_size: 16`, got {value!r}")
    return value


def _explained(error: yaml.YAMLError, name: str, text: str) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    return f"{name}:{_line_of(error, text)}: not the YAML of a config: {problem}{_hint(error, problem)}"


def _line_of(error: yaml.YAMLError, text: str) -> int:
    if mark := getattr(error, "problem_mark", None):
        return mark.line + 1
    return text.count("\n", 0, getattr(error, "position", 0)) + 1


def _hint(error: yaml.YAMLError, problem: str) -> str:
    if isinstance(error, _Unfit):
        return ""
    if isinstance(error, yaml.reader.ReaderError):
        return f" ({chr(error.character)!r})" if isinstance(error.character, int) else ""
    if "'\\t'" in problem:
        return "; indent with spaces in place of tabs"
    return "; text that begins with one of * & ! % @ [ { needs quotes"


def dump(value: Any) -> str:
    """YAML that `load_value` reads back equal."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
