"""Equations and inequalities: which of them only say what a name stands for."""

from __future__ import annotations

import re

from realrl.rewards.scan import split

ORDERS = {"<": "<", r"\le": r"\le", ">": "<", r"\ge": r"\le"}
"""Each, and how it is written with its sides exchanged where it points to the left."""
OPERATORS = {"=", r"\approx", r"\in", r"\ne", *ORDERS}

_CONSTANTS = {r"\pi", r"\infty", "e", "i", r"\emptyset"}
_ATOM = r"(?:\\(?!sqrt|frac|text|begin|pi\b|infty)[A-Za-z]+\s?|[A-Za-z])'*(?:_(?:\w|\{[^{}]*\}))?"
_TUPLE = rf"\({_ATOM}(?:[,;]{_ATOM})*\)"
_SIMPLE = (
    rf"(?:(?:{_ATOM}){{1,6}}(?:\([^()=]*\))?|\|[^|=\d]+\||\\text\{{[^{{}}]*\}}"
    rf"|\\over(?:line|rightarrow)\{{[A-Z]+\}}|{_TUPLE})"
)
_NAME = re.compile(
    rf"{_SIMPLE}(?:[:/]{_SIMPLE})?|\\frac\{{{_SIMPLE}\}}\{{{_SIMPLE}\}}|[A-Za-z]{{2,}}(?: [A-Za-z]+){{0,3}}"
)
_VARIABLE = re.compile(_ATOM)


def is_name(expression: str) -> bool:
    r"""Something that is given a value, as `x`, `f(2)`, `|AB|`, `(p,q)` or `\frac{NO}{BO}`."""
    return expression not in _CONSTANTS and bool(_NAME.fullmatch(expression))


def names_agree(first: str, second: str) -> bool:
    """Two variables must be the same; names of other kinds may be spelled in more than one way."""
    if not (_VARIABLE.fullmatch(first) and _VARIABLE.fullmatch(second)):
        return True
    return re.sub(r"[{}]", "", first) == re.sub(r"[{}]", "", second)


def chain(expression: str) -> tuple[list[str], list[str]]:
    """`(sides, operators)`, without what is only approximately equal to the sides before it."""
    sides, operators = split(expression, OPERATORS)
    if operators and not sides[0] and operators[0] in ("=", r"\approx"):
        return chain(expression.removeprefix(operators[0]).strip())
    if r"\approx" in operators:
        end = operators.index(r"\approx")
        if end == 0 and is_name(sides[0]):
            return sides[:2], ["="]
        sides, operators = sides[: end + 1], operators[:end]
    return sides, operators


def ascending(sides: list[str], operators: list[str]) -> tuple[list[str], list[str]]:
    r"""The same order written with `<` and `\le` only, if it points one way."""
    if all(op in (">", r"\ge") for op in operators):
        return sides[::-1], [ORDERS[op] for op in reversed(operators)]
    return sides, operators


def bounds(sides: list[str], operators: list[str]) -> tuple[str, str, str, str] | None:
    r"""`(name, delimiters, lower, upper bound)` of an order that holds a name between bounds, else None.

    `-x > -1` counts, a sum that holds x does not: `x + 2 < 9` is a question, not its answer.
    """
    sides, operators = ascending(sides, operators)
    if not all(op in ("<", r"\le") for op in operators) or not 2 <= len(sides) <= 3:
        return None
    sides, operators = _negated(sides, operators)
    opening, closing = ("[" if operators[0] == r"\le" else "("), ("]" if operators[-1] == r"\le" else ")")
    if len(sides) == 3:
        return (sides[1], opening + closing, sides[0], sides[2]) if is_name(sides[1]) else None
    if is_name(sides[0]):
        return sides[0], "(" + closing, r"-\infty", sides[1]
    return (sides[1], opening + ")", sides[0], r"\infty") if is_name(sides[1]) else None


def _negated(sides: list[str], operators: list[str]) -> tuple[list[str], list[str]]:
    if not any(side.startswith("-") and is_name(side[1:]) for side in sides):
        return sides, operators
    return [_negative(side) for side in reversed(sides)], operators[::-1]


def _negative(side: str) -> str:
    is_negated_term = side.startswith("-") and not split(side[1:], "+-")[1]
    return side[1:] if is_negated_term else f"-({side})"
