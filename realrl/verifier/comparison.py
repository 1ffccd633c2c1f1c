"""Compares an answer with a solution. An answer may say less than the solution, but nothing that differs.

Two readings are the same if one meaning of the first is one of the second. Two meanings are compared by the
rule for their kinds, or else are different:

    meanings ─▶ the solution gives several names their values ─▶ name by name (named_values.py)
             └▶ the pair of their kinds in COMPARISONS ────────▶ its rule
             └▶ the pair of their kinds in DIFFERENT ──────────▶ different
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from realrl.verifier import sets
from realrl.verifier.amounts import same_congruence, same_family, same_moment, same_number, same_numeral
from realrl.verifier.equations import same_relation
from realrl.verifier.items import (
    formula_for_items,
    items_for_formula,
    items_for_one,
    items_for_words,
    one_for_items,
    same_items,
    words_for_items,
)
from realrl.verifier.members import Same
from realrl.verifier.named_values import (
    assignments,
    named_for_value,
    same_assignments,
    same_named,
    value_for_named,
)
from realrl.verifier.progressions import items_for_progression, progression_for_items, same_progression
from realrl.verifier.readers.real_sets import as_real_set
from realrl.verifier.tree import (
    Congruence,
    Family,
    Formula,
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
    Value,
    Words,
)
from realrl.verifier.words import same_words

Compare = Callable[[Any, Any, Same], bool]
"""Returns whether an answer is a solution, both of the kinds that a table gives; `Same` compares parts."""


def same(answer: Reading, solution: Reading) -> bool:
    """Return whether one meaning of an answer is one of a solution."""
    for wanted in solution:
        if any(_same_value(mine, wanted) for mine in answer):
            return True
    return False


def _same_value(answer: Value, solution: Value) -> bool:
    """Return whether a meaning of an answer is a meaning of a solution."""
    wanted = assignments(solution)
    if wanted is not None and len(wanted) > 1:
        return same_assignments(answer, wanted, same)
    kinds = (type(answer), type(solution))
    if kinds[1] in DIFFERENT[kinds[0]]:
        return False
    compare = COMPARISONS[kinds]
    return compare(answer, solution, same)


def _same_real_set(answer: Value, solution: Value) -> bool:
    mine = as_real_set(answer)
    wanted = as_real_set(solution)
    if mine is None or wanted is None:
        return False
    return sets.same_set(mine, wanted)


def _without_parts(rule: Callable[[Any, Any], bool]) -> Compare:
    """Return the comparison by a rule for values without parts."""
    return lambda answer, solution, _: rule(answer, solution)


_numbers = _without_parts(same_number)
_numerals = _without_parts(same_numeral)
_families = _without_parts(same_family)
_residues = _without_parts(same_congruence)
_real_sets = _without_parts(_same_real_set)

_NUMBERS = (Formula, Quantity, Percentage)
_SINGLE_VALUES = (Family, Quantity, Percentage, Numeral, Congruence, Moment)
"""Kinds of single values, except those that have a rule of their own for a collection."""
_NAMELESS = (*_NUMBERS, Family, Words, Numeral, Congruence, Moment, Items, Progression, RealSet)

COMPARISONS: dict[tuple[type, type], Compare] = {
    **dict.fromkeys(product(_NUMBERS, _NUMBERS), _numbers),
    (Family, Family): _families,
    (Family, Formula): _families,
    (Formula, Family): _families,
    (Words, Words): _without_parts(same_words),
    (Numeral, Numeral): _numerals,
    (Numeral, Formula): _numerals,
    (Formula, Numeral): _numerals,
    (Congruence, Congruence): _residues,
    (Congruence, Formula): _residues,
    (Formula, Congruence): _residues,
    (Moment, Moment): _without_parts(same_moment),
    (Items, Items): same_items,
    (Items, Formula): items_for_formula,
    (Formula, Items): formula_for_items,
    (Items, Words): items_for_words,
    (Words, Items): words_for_items,
    **dict.fromkeys(product((Items,), _SINGLE_VALUES), items_for_one),
    **dict.fromkeys(product(_SINGLE_VALUES, (Items,)), one_for_items),
    (Progression, Progression): same_progression,
    (Progression, Items): progression_for_items,
    (Items, Progression): items_for_progression,
    (RealSet, RealSet): _real_sets,
    (RealSet, Items): _real_sets,
    (Items, RealSet): _real_sets,
    (Named, Named): same_named,
    **dict.fromkeys(product((Named,), _NAMELESS), named_for_value),
    **dict.fromkeys(product(_NAMELESS, (Named,)), value_for_named),
    (Relation, Relation): same_relation,
}
"""The rule for each kind of answer and each kind of solution that can mean the same."""

DIFFERENT: dict[type, frozenset[type]] = {
    Formula: frozenset((Words, Moment, Progression, RealSet, Relation)),
    Family: frozenset(
        (Quantity, Percentage, Words, Numeral, Congruence, Moment, Progression, RealSet, Relation)
    ),
    Quantity: frozenset((Family, Words, Numeral, Congruence, Moment, Progression, RealSet, Relation)),
    Percentage: frozenset((Family, Words, Numeral, Congruence, Moment, Progression, RealSet, Relation)),
    Words: frozenset((*_NUMBERS, Family, Numeral, Congruence, Moment, Progression, RealSet, Relation)),
    Numeral: frozenset(
        (Family, Quantity, Percentage, Words, Congruence, Moment, Progression, RealSet, Relation)
    ),
    Congruence: frozenset(
        (Family, Quantity, Percentage, Words, Numeral, Moment, Progression, RealSet, Relation)
    ),
    Moment: frozenset((*_NUMBERS, Family, Words, Numeral, Congruence, Progression, RealSet, Relation)),
    Items: frozenset((Relation,)),
    Progression: frozenset((*_NUMBERS, Family, Words, Numeral, Congruence, Moment, RealSet, Relation)),
    RealSet: frozenset((*_NUMBERS, Family, Words, Numeral, Congruence, Moment, Progression, Relation)),
    Named: frozenset((Relation,)),
    Relation: frozenset((*_NAMELESS, Named)),
}
"""For each kind of answer, the kinds of solutions that it never means."""
