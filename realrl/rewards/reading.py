"""Reads an answer as a tree of lists, tuples, intervals, sets, matrices and named values."""

from __future__ import annotations

import re

from realrl.rewards.latex import clean
from realrl.rewards.number import parse_number
from realrl.rewards.relation import ORDERS, ascending, bounds, chain, is_name
from realrl.rewards.scan import depth_of, enclosed, split
from realrl.rewards.tree import Items, Leaf, Matrix, Named, Relation, Value, Words
from realrl.rewards.units import split_unit

MAX_DEPTH = 40
"""Of delimiters inside each other; what goes deeper is compared as text."""

_SETS = {r"\mathbb{R}": r"(-\infty,\infty)", r"\{\}": r"\emptyset"}
_WORDS = re.compile(r"\\text\{[^{}]*\}|(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z' .-]*")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_MATRIX = re.compile(
    r"\\begin\{(?:[pbB]?matrix|smallmatrix|array)\}(?:\{[clr|]*\})?((?:(?!\\begin).)*)\\end\{[A-Za-z]+\}",
    re.DOTALL,
)


def read(expression: str) -> Value:
    """The tree of an answer as it was written."""
    text = clean(expression)
    return Words(text) if depth_of(text) > MAX_DEPTH else read_clean(text)


def read_clean(text: str) -> Value:
    """The tree of an expression in `latex.clean`'s spelling."""
    text = _SETS.get(text, text)
    if parse_number(text) is not None:
        return Leaf(text)
    if _WORDS.fullmatch(text):
        return Words(words(text))
    for reader in (_list, _relation, _union, _ratio, _enclosed, _matrix, _signs):
        value = reader(text)
        if value is not None:
            return value
    return _leaf(text)


def words(text: str) -> str:
    """Letters and digits alone, in one case."""
    return "".join(re.findall(r"\w+", _TEXT.sub(r" \1 ", text).casefold()))


def _members(text: str) -> list[str]:
    """Cut at `;`, and at commas but for those in a number or in the number that something is equal to."""
    parts, _ = split(text, ";")
    return [
        member
        for part in parts
        for member in ([part] if _has_thousands(part) else split(part, ",")[0])
        if member
    ]


def _has_thousands(text: str) -> bool:
    tail = text.rpartition("=")[2]
    return "," in tail and parse_number(tail) is not None


def _list(text: str) -> Value | None:
    members = _members(text)
    if len(members) == 1 and members[0] != text:
        return read_clean(members[0])
    return Items(",", _flat(members), text) if len(members) > 1 else None


def _flat(members: list[str]) -> tuple[Value, ...]:
    r"""The values of a list's members, of which one with `\pm` is two."""
    values = map(read_clean, filter(None, members))
    return tuple(
        value
        for outer in values
        for value in (outer.items if isinstance(outer, Items) and outer.kind == "," else (outer,))
    )


def _relation(text: str) -> Value | None:
    sides, operators = chain(text)
    if not operators:
        return read_clean(sides[0]) if sides[0] != text else None
    if len(sides) == 2 and operators == [r"\in"]:
        return Named(sides[0], read_clean(sides[1]))
    if set(operators) == {"="}:
        return _equation(sides, operators)
    if found := bounds(sides, operators):
        name, kind, low, high = found
        return Named(name, Items(kind, (read_clean(low), read_clean(high))))
    if set(operators) <= set(ORDERS):
        sides, operators = ascending(sides, operators)
    return Relation(tuple(operators), tuple(sides))


def _equation(sides: list[str], operators: list[str]) -> Value:
    if is_name(sides[0]):
        return Named(sides[0], read_clean(sides[-1]))
    if len(sides) == 2 and is_name(sides[1]):
        return Named(sides[1], read_clean(sides[0]))
    return Relation(tuple(operators), tuple(sides))


def _union(text: str) -> Value | None:
    parts, found = split(text, (r"\cup",))
    return Items("∪", tuple(map(read_clean, parts)), text) if found else None


def _ratio(text: str) -> Value | None:
    parts, found = split(text, ":")
    return Items(":", tuple(map(read_clean, parts)), text) if found else None


def _enclosed(text: str) -> Value | None:
    found = enclosed(split_unit(text)[0])
    if found is None:
        return None
    kind, inside = found
    if kind == "{":
        return read_clean(inside)
    parts = split(inside, ",;")[0]
    if len(parts) == 1 and kind == "()":
        return read_clean(inside)
    if len(parts) == 1 and kind == "[]":
        return _matrix(inside)
    return Items(kind, _flat(parts) if kind == "{}" else tuple(map(read_clean, parts)), text)


def _matrix(text: str) -> Value | None:
    match = _MATRIX.fullmatch(text)
    if not match:
        return None
    rows = [split(row, "&")[0] for row in re.split(r"\\\\", match[1]) if row.strip()]
    return Matrix(tuple(tuple(map(read_clean, row)) for row in rows), text)


def _signs(text: str) -> Value | None:
    r"""Both values of an expression with `\pm`, where every `\pm` has one sign and every `\mp` the other."""
    if not re.search(r"\\[pm]m(?![A-Za-z])", text):
        return None
    plus, minus = re.compile(r"\\pm(?![A-Za-z])\s*"), re.compile(r"\\mp(?![A-Za-z])\s*")
    both = plus.sub("+", minus.sub("-", text)), plus.sub("-", minus.sub("+", text))
    return Items(",", tuple(map(read_clean, (both[0].removeprefix("+"), both[1].removeprefix("+")))), text)


def _leaf(text: str) -> Value:
    bare, unit = split_unit(text)
    if unit == "" and bare == text:
        return Leaf(_TEXT.sub(r" \1 ", text).strip().removeprefix("+"))
    value = read_clean(bare)
    return Leaf(value.latex, value.unit or unit) if isinstance(value, Leaf) else value
