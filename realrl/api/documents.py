"""Reads and writes YAML with the plain values of its version 1.2: `1e-5` is a number, `no` is text.

Source: https://yaml.org/spec/1.2.2/, section 10.3 (the core schema).
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, NamedTuple

import yaml
from yaml.reader import ReaderError
from yaml.resolver import BaseResolver

_MOST_DEPTH = 32
"""Nested lists and mappings; no config has half as many."""


class _Plain(NamedTuple):
    """How a type of value is written without quotes."""

    tag: str
    pattern: str
    first_letters: list[str]
    """PyYAML tries the pattern only on texts that begin so; empty for the empty text."""


_FLOAT = (
    r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_PLAIN = (
    _Plain("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    _Plain("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    _Plain("int", r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    _Plain("float", _FLOAT, list("-+.0123456789")),
)


class _Unfit(yaml.MarkedYAMLError):
    """YAML that is not that of a config, where quotes would not help."""


class _Loader(yaml.SafeLoader):
    """Also refuses a key that is given twice, a key that is not text, aliases, tags and great depth."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node, unless a config may not have it."""
        self._check_event(self.peek_event())  # type: ignore[no-untyped-call]
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _check_event(self, event: yaml.NodeEvent) -> None:
        """Check the beginning of a node."""
        mark = event.start_mark
        assert isinstance(mark, yaml.Mark), "PyYAML's own parser marks its events"
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not for configs", problem_mark=mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.MarkedYAMLError(problem=f"tags as {tag} are not for configs", problem_mark=mark)
        if self._depth == _MOST_DEPTH:
            problem = f"it is nested more than {_MOST_DEPTH} levels deep"
            raise _Unfit(problem=problem, problem_mark=mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return the value of a node."""
        try:
            return super().construct_object(node, deep)
        except ValueError:
            # Python reads whole numbers of up to 4300 digits.
            problem = f"{len(node.value)} digits are too many for a number"
            raise _Unfit(problem=problem, problem_mark=node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return the mapping of a node whose keys are distinct texts."""
        found = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            mark = key_node.start_mark
            if not isinstance(key, str):
                raise _Unfit(problem=f"expected a name, got {key!r}", problem_mark=mark)
            if key in found:
                raise _Unfit(problem=f"{key!r} is given twice", problem_mark=mark)
            found.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader` would read as another value; writes no aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        """Return that every value is written in full."""
        return True


def _add_plain_values(resolver: type[BaseResolver]) -> None:
    """Let a loader or a dumper know how plain values are written."""
    for plain in _PLAIN:
        resolver.add_implicit_resolver(
            f"tag:yaml.org,2002:{plain.tag}",
            re.compile(f"^(?:{plain.pattern})$"),
            plain.first_letters,
        )


_add_plain_values(_Loader)
_add_plain_values(_Dumper)


def load_value(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML.
    """
    return yaml.load(text, _Loader)


def load_mapping(text: str, name: str) -> dict[str, Any]:
    """Return the mapping in a YAML document; `name` stands for it in messages.

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
    """Return the message about a text that cannot be read: where, why, and what may help."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    what = problem or "cannot be read"
    line = _line_of(error, text)
    return f"{name}:{line}: not the YAML of a config: {what}{_hint(error, what)}"


def _line_of(error: yaml.YAMLError, text: str) -> int:
    """Return the number of the line that cannot be read."""
    mark = getattr(error, "problem_mark", None)
    if isinstance(mark, yaml.Mark):
        return mark.line + 1
    position = getattr(error, "position", 0)
    return text.count("\n", 0, position) + 1


def _hint(error: yaml.YAMLError, problem: str) -> str:
    """Return the end of a message about an error: the character, or what may help."""
    if isinstance(error, _Unfit):
        return ""
    if isinstance(error, ReaderError):
        # The character is a number, or bytes where the text is no UTF-8.
        character = error.character
        return f" ({chr(character)!r})" if isinstance(character, int) else ""
    if "'\\t'" in problem:
        return "; indent with spaces in place of tabs"
    return "; text that begins with one of * & ! % @ [ { needs quotes"


def dump(value: Any) -> str:
    """Return YAML that `load_value` reads back equal."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
