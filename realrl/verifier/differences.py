"""Words the difference between two readings: by the parts that differ, down to two formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

from realrl.verifier import units
from realrl.verifier.comparison import same
from realrl.verifier.describing import ORDERED, described, described_value, kind_of
from realrl.verifier.formula_reasons import why_different
from realrl.verifier.named_values import names_agree
from realrl.verifier.tree import (
    Bound,
    Family,
    Formula,
    FormulaValue,
    Items,
    Named,
    Quantity,
    Reading,
    RealSet,
    Relation,
    Value,
    Words,
)


def why_not(found: Reading, expected: Reading) -> str:
    """Return why the usual meanings differ, or other meanings of the same kind."""
    mine, wanted = _comparable(found, expected)
    why = _different(mine, wanted)
    has_others = len(found) + len(expected) > 2
    if has_others:
        return f"{why}; no other meaning of one is one of the other"
    return why


def _comparable(found: Reading, expected: Reading) -> tuple[Value, Value]:
    """Return the two meanings to explain: amounts if possible, else values of one kind, else the usual."""
    for wanted, mine in product(expected, found):
        if isinstance(mine, Quantity) and isinstance(wanted, Quantity):
            return mine, wanted
    for wanted, mine in product(expected, found):
        if kind_of(mine) == kind_of(wanted):
            return mine, wanted
    return found[0], expected[0]


def _different(mine: Value, wanted: Value) -> str:
    """Return why two values differ."""
    # The values can be the same where a rule about the whole readings decided.
    if same((mine,), (wanted,)):
        return "parts of them say the same, and the whole does not"
    kinds = (type(mine), type(wanted))
    reason = _DIFFERENT.get(kinds)
    if reason is not None:
        return reason(mine, wanted)
    if Relation not in kinds:
        if isinstance(mine, Named):
            return _different_named(mine, mine.value[0], wanted)
        if isinstance(wanted, Named):
            return _different_named(wanted, mine, wanted.value[0])
    return _different_kinds(mine, wanted)


def _different_kinds(mine: Value, wanted: Value) -> str:
    """Return why two values differ for whose kinds there is no rule."""
    if isinstance(mine, Family) and isinstance(wanted, Family):
        if mine.range != wanted.range:
            return f"the ranges differ: {_both(mine, wanted)}"
    if isinstance(mine, FormulaValue) and isinstance(wanted, FormulaValue):
        return why_different(mine.node, wanted.node)
    kind = kind_of(mine)
    wanted_kind = kind_of(wanted)
    if kind != wanted_kind:
        return f"{kind} is not {wanted_kind}"
    if isinstance(mine, Words):
        return f"the words differ: {_both(mine, wanted)}"
    return f"both are {kind}, and differ: {_both(mine, wanted)}"


def _both(mine: Value, wanted: Value) -> str:
    """Return both values in words."""
    return f"{described_value(mine)} and {described_value(wanted)}"


def _different_relations(mine: Relation, wanted: Relation) -> str:
    if mine.operators != wanted.operators:
        operators = " ".join(mine.operators)
        wanted_operators = " ".join(wanted.operators)
        return f"the relations differ: {operators} and {wanted_operators}"
    if set(mine.operators) == {"="}:
        return "neither are the sides of the equations equal, nor is one a multiple of the other"
    return "the sides of the relations differ"


def _different_statements(mine: Named, wanted: Named) -> str:
    if not names_agree(mine.name, wanted.name):
        return f"they say something about different names, {mine.name} and {wanted.name}"
    return _different(mine.value[0], wanted.value[0])


def _different_named(named: Named, mine: Value, wanted: Value) -> str:
    if not named.may_be_dropped:
        return f"what is said about {named.name} is no value of its own"
    if not named.is_one_thing:
        return f"{named.name} is not the name of one thing, which could be left out"
    return _different(mine, wanted)


def _different_sets(mine: RealSet, wanted: RealSet) -> str:
    count = len(mine.parts)
    wanted_count = len(wanted.parts)
    if not count == wanted_count == 1:
        return f"the sets differ, of {count} and {wanted_count} intervals"
    (interval,) = mine.parts
    (wanted_interval,) = wanted.parts
    reason = _different_bounds(interval.low, wanted_interval.low)
    if reason:
        return f"of the lower bounds {reason}"
    reason = _different_bounds(interval.high, wanted_interval.high)
    if not reason:
        raise AssertionError("two sets that are the same")
    return f"of the upper bounds {reason}"


def _different_bounds(mine: Bound, wanted: Bound) -> str:
    """Return why two ends of intervals differ; an empty text if they do not."""
    node = mine.node
    wanted_node = wanted.node
    if (node is None) != (wanted_node is None):
        return "one is infinite"
    if node is not None and wanted_node is not None:
        found = (Formula(node),)
        expected = (Formula(wanted_node),)
        if not same(found, expected):
            return why_different(node, wanted_node)
    if mine.is_closed != wanted.is_closed:
        return "one is part of the set, and the other is not"
    return ""


def _different_items(mine: Items, wanted: Items) -> str:
    kinds = (mine.kind, wanted.kind)
    if kind_of(mine) != kind_of(wanted) and "()" in kinds:
        return f"{kind_of(mine)} is not {kind_of(wanted)}"
    count = len(mine.items)
    wanted_count = len(wanted.items)
    # Sets may repeat a member.
    if count != wanted_count and "{}" not in kinds:
        return f"there are {count} members, and not {wanted_count}"
    if mine.kind in (*ORDERED, ":"):
        return _first_different(mine.items, wanted.items)
    strange = _without_twin(mine.items, wanted.items)
    if strange:
        return f"the solution has no member that is {described(strange)}"
    missing = _without_twin(wanted.items, mine.items)
    if missing:
        return f"the answer has no member that is {described(missing)}"
    return "the members are there a different number of times"


def _first_different(mine: Sequence[Reading], wanted: Sequence[Reading]) -> str:
    pairs = zip(mine, wanted, strict=False)
    for place, (item, other) in enumerate(pairs, 1):
        if not same(item, other):
            return f"member {place}: {why_not(item, other)}"
    return "the members differ"


def _without_twin(items: Sequence[Reading], others: Sequence[Reading]) -> Reading:
    """Return the first of `items` that is the same as none of `others`; an empty reading if there is none."""
    for item in items:
        if not any(same(item, other) for other in others):
            return item
    return ()


def _different_amounts(mine: Quantity, wanted: Quantity) -> str:
    if mine.unit == wanted.unit:
        return why_different(mine.node, wanted.node)
    are_known = mine.unit.is_known and wanted.unit.is_known
    if are_known and units.same_kind(mine.unit, wanted.unit):
        return f"the amounts differ: {_both(mine, wanted)}"
    return f"the units differ: {_both(mine, wanted)}"


_DIFFERENT: dict[tuple[type, type], Callable[[Any, Any], str]] = {
    (Quantity, Quantity): _different_amounts,
    (Items, Items): _different_items,
    (RealSet, RealSet): _different_sets,
    (Named, Named): _different_statements,
    (Relation, Relation): _different_relations,
}
"""The reason why two values differ, by their kinds."""
