r"""Reads atoms between brackets or bars: groups, vectors, rounded numbers, absolute values, determinants."""

from __future__ import annotations

from realrl.verifier.cursor import Unreadable
from realrl.verifier.nodes import Array, Node, operation
from realrl.verifier.parser import Parser

_ROUNDING = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceiling")}
OPENINGS = ("(", "[", "{", r"\{", r"\langle", *_ROUNDING)
"""The brackets that may begin a factor."""


def read_bracketed(parser: Parser) -> Node:
    """A formula in brackets, or a vector."""
    opening = parser.peek().text
    if opening in _ROUNDING:
        closing, name = _ROUNDING[opening]
        return operation(name, parser.between(opening, closing))
    if opening == "{":
        return parser.group()
    if opening not in ("(", "[", r"\langle"):
        raise Unreadable(opening)
    entries = parser.entries(opening)
    return entries[0] if len(entries) == 1 and opening != r"\langle" else _array(entries)


def _array(entries: tuple[Node, ...]) -> Node:
    """A vector, or a matrix of vectors of one length."""
    if all(isinstance(entry, Array) and len(entry.rows) == 1 for entry in entries):
        rows = tuple(entry.rows[0] for entry in entries)
        if len({len(row) for row in rows}) == 1:
            return Array(rows)
    if any(isinstance(entry, Array) for entry in entries):
        raise Unreadable("a vector of vectors of several lengths")
    return Array((entries,))


def read_bars(parser: Parser) -> Node:
    """The absolute value of a number, or the determinant of a matrix."""
    inside = parser.between_bars()
    return operation("determinant" if isinstance(inside, Array) else "abs", inside)
