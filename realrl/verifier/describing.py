"""Words the meanings that an answer is read as: `interval [1, 2) for x`, `number 3/2 in cm (length)`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from realrl.verifier import units
from realrl.verifier.nodes import Array, Node, free_symbols
from realrl.verifier.tree import (
    Bound,
    Congruence,
    Family,
    Formula,
    Interval,
    Items,
    Moment,
    Named,
    Numeral,
    Percentage,
    Progression,
    Quantity,
    Reading,
    RealSet,
    Relation,
    Unit,
    Value,
    Words,
)
from realrl.verifier.writing import shortened, written

_MOST_MEMBERS = 6
"""The largest number of members that are shown of a collection."""
_MOST_CHARS = 600
"""The length of the longest description."""
_DEPTH = 6
"""The largest depth of values in each other that are shown."""
_COLLECTIONS = {
    **{"()": "tuple", "{}": "set", ",": "list", "[]": "list in brackets", "or": "choice of alternatives"},
    **{":": "ratio"},
}
ORDERED = ("()", "[]")
"""The kinds of collections whose members have an order."""


def described(reading: Reading) -> str:
    """Return everything that an answer may mean, the usual meaning first."""
    return shortened(_reading(reading, _DEPTH), _MOST_CHARS)


def described_value(value: Value) -> str:
    """Return one meaning in words."""
    return shortened(_value(value, _DEPTH), _MOST_CHARS)


def kind_of(value: Value) -> str:
    """Return the kind of a value, with its article."""
    match value:
        case Formula(node=Array()):
            return "a matrix"
        case Formula(node=node):
            return "a formula" if free_symbols(node) else "a number"
        case Family():
            return "a family"
        case Quantity():
            return "a number with a unit"
        case Items(kind=kind):
            return f"a {_COLLECTIONS.get(kind, 'list')}"
        case Relation(operators=operators):
            if set(operators) == {"="}:
                return "an equation"
            return "a relation"
        case RealSet():
            return "a set of real numbers"
        case Named():
            return "the value of a name"
        case Moment():
            return "a date" if value.minutes is None else "a time"
    return _KINDS[type(value)]


_SETS = {r"\mathbb z": "ℤ", r"\mathbb n": "ℕ"}
_KINDS: dict[type, str] = {
    Percentage: "a percentage",
    Words: "a text",
    Numeral: "digits in a base",
    Congruence: "a residue",
    Progression: "a list with dots",
}


def _reading(reading: Reading, depth: int) -> str:
    return "; or ".join(_value(value, depth) for value in reading)


def _value(value: Value, depth: int) -> str:
    if not depth:
        return "…"
    match value:
        case Formula(node=node):
            return _formula(node)
        case Family(node=node, variable=variable, range=range_):
            shown_range = _SETS.get(range_, shortened(range_))
            return f"{_formula(node)} for all {variable} in {shown_range}"
        case Quantity(node=node, unit=unit):
            return f"number {written(node)} {_unit(unit)}"
        case Percentage(node=node):
            return f"{written(node)} percent"
        case Words(words=words):
            return 'words "' + shortened(" ".join(words)) + '"'
        case Numeral(digits=digits, base=base):
            return f"digits {shortened(digits)} in base {base}"
        case Congruence(node=node, modulus=modulus):
            return f"{written(node)} modulo {written(modulus)}"
        case Moment():
            return _moment(value)
        case Items(kind=kind, items=items):
            return _items(kind, items, depth)
        case Progression(first=first, last=last):
            return f"list with dots{_members((*first, *last), depth)}"
        case RealSet():
            return real_set(value)
        case Named(name=name, value=inner):
            return f"{_reading(inner, depth - 1)} for {name}"
        case Relation(operators=operators, sides=sides):
            return _relation(operators, sides, depth)
    raise AssertionError(f"no value: {value!r:.100}")


def _formula(node: Node) -> str:
    shown = written(node)
    if isinstance(node, Array):
        num_rows = len(node.rows)
        num_columns = len(node.rows[0])
        return f"matrix of {num_rows} by {num_columns}: {shown}"
    names = ", ".join(sorted(free_symbols(node)))
    if not names:
        return f"number {shown}"
    return f"formula in {names}: {shown}"


def _unit(unit: Unit) -> str:
    if not unit.is_known:
        return f'of "{unit.kind}"'
    name = units.unit_name(unit)
    if name:
        return f"in {name} ({unit.kind})"
    if unit.factor == 1:
        return f"with a unit of {unit.kind}"
    return f"with a unit of {unit.kind}, {_plain(unit.factor)} of its base units"


def _plain(number: Fraction) -> str:
    return shortened(str(number), 40)


def _moment(value: Moment) -> str:
    if value.minutes is not None:
        hours, minutes = divmod(value.minutes, 60)
        return f"time {hours}:{minutes:02} {value.half}".rstrip()
    known: list[str] = []
    for name in ("day", "month", "year"):
        part = getattr(value, name)
        if part is not None:
            known.append(f"{name} {part}")
    return "date " + ", ".join(known)


def _items(kind: str, items: Sequence[Reading], depth: int) -> str:
    if not items:
        return f"empty {_COLLECTIONS.get(kind, 'list')}"
    members = _members(items, depth)
    if kind == "or":
        return f"{len(items)} alternatives{members}"
    name = _COLLECTIONS.get(kind, "list")
    return f"{name} of {len(items)}{members}"


def _members(items: Sequence[Reading], depth: int) -> str:
    """Return the usual meanings of the first members, after a colon."""
    shown: list[str] = []
    for item in items[:_MOST_MEMBERS]:
        usual = item[:1]
        shown.append(_reading(usual, depth - 1))
    if len(items) > _MOST_MEMBERS:
        shown.append("…")
    return ": " + ", ".join(shown)


def real_set(value: RealSet) -> str:
    """Return a set of real numbers in words and signs."""
    if not value.parts:
        return "empty set of real numbers"
    count = len(value.parts)
    shown = list(map(_interval, value.parts[:_MOST_MEMBERS]))
    if count == 1:
        return f"interval {shown[0]}"
    return f"union of {count} intervals: {', '.join(shown)}"


def _interval(part: Interval) -> str:
    left = "[" if part.low.is_closed else "("
    right = "]" if part.high.is_closed else ")"
    low = _bound(part.low, "-")
    high = _bound(part.high, "")
    return f"{left}{low}, {high}{right}"


def _bound(bound: Bound, sign: str) -> str:
    if bound.node is None:
        return f"{sign}infinity"
    return written(bound.node)


def _relation(operators: Sequence[str], sides: Sequence[Reading], depth: int) -> str:
    shown = [_side(side, depth) for side in sides]
    text = shown[0]
    for operator, side in zip(operators, shown[1:], strict=False):
        text += f" {operator} {side}"
    kind = "equation" if set(operators) == {"="} else "relation"
    return f"{kind} {text}"


def _side(side: Reading, depth: int) -> str:
    """Return the usual meaning of a side; a formula is shown without its kind."""
    usual = side[0]
    if isinstance(usual, Formula):
        return written(usual.node)
    return _reading(side[:1], depth - 1)
