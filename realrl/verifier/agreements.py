"""Words why two readings mean the same, by the kinds of the values that agree."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from realrl.verifier.comparison import same
from realrl.verifier.describing import ORDERED, described_value, kind_of
from realrl.verifier.formula_reasons import why_equal
from realrl.verifier.tree import (
    Family,
    Formula,
    Items,
    Named,
    Percentage,
    Quantity,
    Reading,
    RealSet,
    Relation,
    Value,
)


def why_same(found: Reading, expected: Reading) -> str:
    """Return why the first two meanings that agree are the same."""
    pair = _first_same(found, expected)
    # A rule about the whole readings can hold without two meanings that agree.
    if pair is None:
        return "both say the same"
    mine, wanted = pair
    why = _same(mine, wanted)
    are_usual = (mine, wanted) == (found[0], expected[0])
    if mine == wanted or are_usual:
        return why
    answer = described_value(mine)
    solution = described_value(wanted)
    return f"{why}, with the answer as {answer} and the solution as {solution}"


def _first_same(found: Reading, expected: Reading) -> tuple[Value, Value] | None:
    """Return the first two meanings that are the same; None if there are none."""
    for wanted, mine in product(expected, found):
        if same((mine,), (wanted,)):
            return mine, wanted
    return None


def _same(mine: Value, wanted: Value) -> str:
    """Return why two values are the same."""
    if mine == wanted:
        return f"both are read as {described_value(mine)}"
    kinds = (type(mine), type(wanted))
    reason = _SAME.get(kinds)
    if reason is not None:
        return reason(mine, wanted)
    if isinstance(mine, Named):
        return f"the name may be left out, and {why_same(mine.value, (wanted,))}"
    if isinstance(wanted, Named) and same((mine,), wanted.value):
        return f"the name may be left out, and {why_same((mine,), wanted.value)}"
    if Percentage in kinds:
        return "a percentage and the number that it is are the same"
    if RealSet in kinds:
        return "they are one set of real numbers"
    kind = kind_of(mine)
    wanted_kind = kind_of(wanted)
    if kind == wanted_kind:
        return f"both are {kind}, and say the same"
    return f"{kind} that says the same as {wanted_kind}"


def _same_formula(mine: Formula, wanted: Formula) -> str:
    return why_equal(mine.node, wanted.node)


def _same_family(mine: Formula | Family, wanted: Formula | Family) -> str:
    if type(mine) is type(wanted):
        return "they are one family, whatever its whole number is called"
    return f"the range may be left out, and {why_equal(mine.node, wanted.node)}"


def _same_number(mine: Formula | Quantity, wanted: Formula | Quantity) -> str:
    return f"the unit may be left out, and {why_equal(mine.node, wanted.node)}"


def _same_amount(mine: Quantity, wanted: Quantity) -> str:
    if mine.unit == wanted.unit:
        return why_equal(mine.node, wanted.node)
    return "they are one amount, told in other units"


def _same_items(mine: Items, wanted: Items) -> str:
    if mine.kind in ORDERED or wanted.kind in ORDERED:
        return "the members are equal, one by one"
    return "the members are equal, in some order"


def _same_named(mine: Named, wanted: Named) -> str:
    return f"the names agree, and {why_same(mine.value, wanted.value)}"


def _same_relation(mine: Relation, wanted: Relation) -> str:
    return "the sides are equal, or one equation is a multiple of the other"


_SAME: dict[tuple[type, type], Callable[[Any, Any], str]] = {
    (Formula, Formula): _same_formula,
    (Family, Family): _same_family,
    (Family, Formula): _same_family,
    (Formula, Family): _same_family,
    (Formula, Quantity): _same_number,
    (Quantity, Formula): _same_number,
    (Quantity, Quantity): _same_amount,
    (Items, Items): _same_items,
    (Named, Named): _same_named,
    (Relation, Relation): _same_relation,
}
"""The reason why two values are the same, by their kinds."""
