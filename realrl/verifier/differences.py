"""Says in words why two readings differ: by the parts that do, down to two formulas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realrl.verifier import units
from realrl.verifier.comparison import same
from realrl.verifier.describing import ORDERED, described, described_value, kind_of
from realrl.verifier.formula_reasons import why_different
from realrl.verifier.named_values import names_agree
from realrl.verifier.tree import (
    Bound,
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
    Words,
)


def why_not(found: Reading, expected: Reading) -> str:
    """Return why the usual meanings differ, or others that are of one kind."""
    why = _different(*_comparable(found, expected))
    has_others = len(found) + len(expected) > 2
    return f"{why}; no other meaning of one is one of the other" if has_others else why


def _comparable(found: Reading, expected: Reading) -> tuple[Value, Value]:
    """Return two meanings whose difference is worth a sentence: amounts, else values of one kind."""
    pairs = [(mine, wanted) for wanted in expected for mine in found]
    amounts = [pair for pair in pairs if all(isinstance(value, Quantity) for value in pair)]
    alike = [pair for pair in pairs if kind_of(pair[0]) == kind_of(pair[1])]
    return (amounts or alike or pairs)[0]


def _different(mine: Value, wanted: Value) -> str:
    if same((mine,), (wanted,)):  # a rule is about more than the two
        return "parts of them say the same, and the whole does not"
    reason = _DIFFERENT.get((type(mine), type(wanted)))
    if reason is not None:
        return reason(mine, wanted)
    if isinstance(mine, Named) and not isinstance(wanted, Relation):
        return _different_named(mine, mine.value[0], wanted)
    if isinstance(wanted, Named) and not isinstance(mine, Relation):
        return _different_named(wanted, mine, wanted.value[0])
    if isinstance(mine, Family) and isinstance(wanted, Family) and mine.range != wanted.range:
        return f"the ranges differ: {described_value(mine)} and {described_value(wanted)}"
    if _has_node(mine) and _has_node(wanted):
        return why_different(mine.node, wanted.node)
    if kind_of(mine) != kind_of(wanted):
        return f"{kind_of(mine)} is not {kind_of(wanted)}"
    what = "the words differ" if isinstance(mine, Words) else f"both are {kind_of(mine)}, and differ"
    return f"{what}: {described_value(mine)} and {described_value(wanted)}"


def _has_node(value: Value) -> bool:
    return isinstance(value, Formula | Family | Quantity | Percentage)


def _different_relations(mine: Relation, wanted: Relation) -> str:
    if mine.operators != wanted.operators:
        return f"the relations differ: {' '.join(mine.operators)} and {' '.join(wanted.operators)}"
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
    if len(mine.parts) != 1 or len(wanted.parts) != 1:
        return f"the sets differ, of {len(mine.parts)} and {len(wanted.parts)} intervals"
    pairs = {
        "lower": (mine.parts[0].low, wanted.parts[0].low),
        "upper": (mine.parts[0].high, wanted.parts[0].high),
    }
    reasons = {name: _different_bounds(*pair) for name, pair in pairs.items()}
    return next(f"of the {name} bounds {reason}" for name, reason in reasons.items() if reason)


def _different_bounds(mine: Bound, wanted: Bound) -> str:
    """Why two ends of intervals differ; empty where they do not."""
    if (mine.node is None) != (wanted.node is None):
        return "one is infinite"
    if mine.node is not None and not same((Formula(mine.node),), (Formula(wanted.node),)):
        return why_different(mine.node, wanted.node)
    return "one is part of the set, and the other is not" if mine.is_closed != wanted.is_closed else ""


def _different_items(mine: Items, wanted: Items) -> str:
    if kind_of(mine) != kind_of(wanted) and "()" in (mine.kind, wanted.kind):
        return f"{kind_of(mine)} is not {kind_of(wanted)}"
    if len(mine.items) != len(wanted.items) and "{}" not in (mine.kind, wanted.kind):
        return f"there are {len(mine.items)} members, and not {len(wanted.items)}"
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
    for place, (item, other) in enumerate(zip(mine, wanted, strict=False), 1):
        if not same(item, other):
            return f"member {place}: {why_not(item, other)}"
    return "the members differ"


def _without_twin(items: Sequence[Reading], others: Sequence[Reading]) -> Reading:
    """The first member that is none of the others."""
    return next((item for item in items if not any(same(item, other) for other in others)), ())


def _different_amounts(mine: Quantity, wanted: Quantity) -> str:
    if mine.unit == wanted.unit:
        return why_different(mine.node, wanted.node)
    if mine.unit.is_known and wanted.unit.is_known and units.same_kind(mine.unit, wanted.unit):
        return f"the amounts differ: {described_value(mine)} and {described_value(wanted)}"
    return f"the units differ: {described_value(mine)} and {described_value(wanted)}"


_DIFFERENT: dict[tuple[type, type], Callable[[Value, Value], str]] = {
    (Quantity, Quantity): _different_amounts,
    (Items, Items): _different_items,
    (RealSet, RealSet): _different_sets,
    (Named, Named): _different_statements,
    (Relation, Relation): _different_relations,
}
"""The reason why two values differ, by their kinds."""
