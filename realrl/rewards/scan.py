"""Delimiters of an expression: what stands inside which."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = {"(", "[", "{", r"\{", r"\langle", r"\begin"}
_CLOSING = {")": ")", "]": "]", "}": "}", r"\}": "}", r"\rangle": ")", r"\end": "end"}
_KINDS = {"(": "(", "[": "[", r"\{": "{", r"\langle": "(", "{": ""}


def tokens(expression: str) -> Iterator[tuple[int, str, int]]:
    """`(position, token, depth)`; a delimiter has the depth outside it."""
    depth = 0
    for match in _TOKEN.finditer(expression):
        token = match.group()
        depth -= token in _CLOSING
        yield match.start(), token, depth
        depth += token in _OPENING


def depth_of(expression: str) -> int:
    return max((depth for _, _, depth in tokens(expression)), default=0)


def split(expression: str, separators: Collection[str]) -> tuple[list[str], list[str]]:
    """`(parts, separators between them)`, cut where these stand outside all delimiters."""
    parts, found, start = [], [], 0
    for position, token, depth in tokens(expression):
        if depth == 0 and token in separators:
            parts.append(expression[start:position].strip())
            found.append(token)
            start = position + len(token)
    return [*parts, expression[start:].strip()], found


def enclosed(expression: str) -> tuple[str, str] | None:
    r"""`("[)", inside)` if one pair of `( [ \{ \langle` with its closing, of whatever kind, holds everything.

    Of braces that only group it is `("{", inside)`.
    """
    kind = ""
    for position, token, depth in tokens(expression):
        if position == 0:
            if token not in _KINDS:
                return None
            kind, start = _KINDS[token], len(token)
        elif depth <= 0:
            if position + len(token) < len(expression) or token not in _CLOSING:
                return None
            return kind + _CLOSING[token] if kind else "{", expression[start:position].strip()
    return None
