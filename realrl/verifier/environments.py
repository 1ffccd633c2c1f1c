r"""Reads the environments between `\begin` and `\end`: matrices, determinants, cases."""

from __future__ import annotations

from realrl.verifier.cursor import Unreadable
from realrl.verifier.nodes import Array, Case, Condition, Node, Piecewise, operation
from realrl.verifier.parser import Parser
from realrl.verifier.tokens import TEXT

_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix smallmatrix array".split())
_ORDERS = {"<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", "=": "=", r"\ne": "!="}


def read_environment(parser: Parser, name: str) -> Node:
    r"""Return a matrix, a determinant, or a piecewise function, whose `\begin` is already read.

    Raises:
        Unreadable: The environment is none of these, or its rows differ in length.
    """
    if name == "cases":
        return _cases(parser)
    if name not in (*_MATRICES, "vmatrix"):
        raise Unreadable(name)
    rows = _rows(parser, name)
    parser.expect(rf"\end {name}")
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise Unreadable("rows of several lengths")
    array = Array(tuple(rows))
    if name == "vmatrix":
        return operation("determinant", array)
    return array


def _rows(parser: Parser, name: str) -> list[tuple[Node, ...]]:
    rows: list[tuple[Node, ...]] = []
    while not parser.next_is(rf"\end {name}"):
        entries = [parser.sum()]
        while parser.take("&"):
            entries.append(parser.sum())
        rows.append(tuple(entries))
        if not parser.take(r"\\"):
            break
    return rows


def _cases(parser: Parser) -> Node:
    cases: list[Case] = []
    while not parser.next_is(r"\end cases"):
        value = parser.sum()
        parser.take(",")
        cases.append((value, _conditions(parser)))
        parser.take(",")
        if not parser.take(r"\\"):
            break
    parser.expect(r"\end cases")
    return Piecewise(tuple(cases))


def _conditions(parser: Parser) -> tuple[Condition, ...]:
    """Return the conditions of one case; none for `otherwise`."""
    parser.take("&")
    while _next_is_word(parser, "if", "for", "when"):
        parser.at += 1
    if _next_is_word(parser, "otherwise", "else"):
        parser.at += 1
        return ()
    sides = [parser.sum()]
    operators: list[str] = []
    while parser.next_is(*_ORDERS):
        sign = parser.read().text
        operators.append(_ORDERS[sign])
        sides.append(parser.sum())
    if not operators:
        raise Unreadable("a case without a condition")
    # A chain `a < b < c` is two conditions that share a side.
    conditions: list[Condition] = []
    for operator, left, right in zip(operators, sides, sides[1:]):
        conditions.append(Condition(operator, left, right))
    return tuple(conditions)


def _next_is_word(parser: Parser, *words: str) -> bool:
    """Return whether the next token is one of these words in a text."""
    token = parser.peek()
    return token is not None and token.kind == TEXT and token.text in words
