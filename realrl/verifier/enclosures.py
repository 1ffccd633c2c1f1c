r"""Reads atoms in brackets or bars: groups, vectors, rounded numbers, absolute values, determinants."""

from __future__ import annotations

from realrl.verifier.cursor import Unreadable
from realrl.verifier.nodes import Array, Node, operation
from realrl.verifier.parser import Parser

_ROUNDING = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceiling")}
OPENINGS = ("(", "[", "{", r"\{", r"\langle", *_ROUNDING)
"""The brackets that may begin a factor."""


def read_bracketed(parser: Parser) -> Node:
    """Return a formula in brackets, a rounded number, or a vector.

    Raises:
        Unreadable: The bracket opens nothing that a formula knows.
    """
    opening = parser.current().text
    if opening in _ROUNDING:
        closing, name = _ROUNDING[opening]
        return operation(name, parser.between(opening, closing))
    if opening == "{":
        return parser.group()
    if opening not in ("(", "[", r"\langle"):
        raise Unreadable(opening)
    entries = parser.entries(opening)
    # Angle brackets always enclose a vector, even one with a single entry.
    is_group = len(entries) == 1 and opening != r"\langle"
    if is_group:
        return entries[0]
    return _array(entries)


def _array(entries: tuple[Node, ...]) -> Node:
    """Return a vector, or a matrix whose rows are vectors of one length."""
    vectors = [entry for entry in entries if isinstance(entry, Array)]
    if not vectors:
        return Array((entries,))
    rows: list[tuple[Node, ...]] = []
    for vector in vectors:
        rows.extend(vector.rows)
    lengths = {len(row) for row in rows}
    are_rows = len(rows) == len(vectors) == len(entries)
    if not are_rows or len(lengths) != 1:
        raise Unreadable("a vector of vectors of several lengths")
    return Array(tuple(rows))


def read_bars(parser: Parser) -> Node:
    """Return the absolute value of a number, or the determinant of a matrix."""
    inside = parser.between_bars()
    name = "determinant" if isinstance(inside, Array) else "abs"
    return operation(name, inside)
