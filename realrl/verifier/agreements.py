"""Says in words why two readings mean the same, by the kinds of the two values that do."""

from __future__ import annotations

from collections.abc import Callable

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
    """Return what decided about the first pair of meanings that is the same."""
    pairs = ((mine, wanted) for wanted in expected for mine in found)
    pair = next((pair for pair in pairs if same(pair[:1], pair[1:])), None)
    if pair is None:  # a rule is about both as a whole
        return "both say the same"
    mine, wanted = pair
    why = _same(mine, wanted)
    if mine == wanted or pair == (found[0], expected[0]):
        return why
    return f"{why}, with the answer as {described_value(mine)} and the solution as {described_value(wanted)}"


def _same(mine: Value, wanted: Value) -> str:
    if mine == wanted:
        return f"both are read as {described_value(mine)}"
    reason = _SAME.get((type(mine), type(wanted)))
    if reason is not None:
        return reason(mine, wanted)
    if isinstance(mine, Named):
        return f"the name may be left out, and {why_same(mine.value, (wanted,))}"
    if isinstance(wanted, Named) and same((mine,), wanted.value):
        return f"the name may be left out, and {why_same((mine,), wanted.value)}"
    if isinstance(mine, Percentage) or isinstance(wanted, Percentage):
        return "a percentage and the number that it is are the same"
    if isinstance(mine, RealSet) or isinstance(wanted, RealSet):
        return "they are one set of real numbers"
    if kind_of(mine) == kind_of(wanted):
        return f"both are {kind_of(mine)}, and say the same"
    return f"{kind_of(mine)} that says the same as {kind_of(wanted)}"


def _same_formula(mine: Formula, wanted: Formula) -> str:
    return why_equal(mine.node, wanted.node)


def _same_family(mine: Formula | Family, wanted: Formula | Family) -> str:
    if type(mine) is type(wanted):
        return "they are one family, whatever its whole number is called"
    return f"the range may be left out, and {why_equal(mine.node, wanted.node)}"


def _same_number(mine: Formula | Quantity, wanted: Formula | Quantity) -> str:
    return f"the unit may be left out, and {why_equal(mine.node, wanted.node)}"


def _same_amount(mine: Quantity, wanted: Quantity) -> str:
    are_one = mine.unit == wanted.unit
    return why_equal(mine.node, wanted.node) if are_one else "they are one amount, told in other units"


def _same_items(mine: Items, wanted: Items) -> str:
    is_ordered = mine.kind in ORDERED or wanted.kind in ORDERED
    return f"the members are equal, {'one by one' if is_ordered else 'in some order'}"


def _same_named(mine: Named, wanted: Named) -> str:
    return f"the names agree, and {why_same(mine.value, wanted.value)}"


def _same_relation(mine: Relation, wanted: Relation) -> str:
    return "the sides are equal, or one equation is a multiple of the other"


_SAME: dict[tuple[type, type], Callable[[Value, Value], str]] = {
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
