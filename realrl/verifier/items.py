"""Whether two lists, sets, tuples or ratios are the same, and whether one of these means a single value."""

from __future__ import annotations

from realrl.verifier.arrays import components
from realrl.verifier.equality import equal
from realrl.verifier.members import Same, as_sets, in_any_order, in_order
from realrl.verifier.named_values import assignments
from realrl.verifier.names import is_variable
from realrl.verifier.nodes import Array, Node, Number, free_symbols, operation, whole
from realrl.verifier.tree import Formula, Items, Reading, Value, Words
from realrl.verifier.words import canonical_words

_UNORDERED = (",", "or", "{}")
_NOTHING = Items("{}", ())
"""The empty set, which is also `none` in words."""


def same_items(answer: Items, solution: Items, same: Same) -> bool:
    """Whether two collections have the same members, in the order that their kinds ask for."""
    if _NOTHING in (answer, solution):
        return answer == solution
    if answer.kind == solution.kind == ":":
        return _same_ratio(answer, solution, same)
    mine, wanted = _plain_kind(answer), _plain_kind(solution)
    if mine in _UNORDERED and wanted in _UNORDERED:
        are_points = all(isinstance(item[0], Items) for item in solution.items)
        compared = as_sets if are_points or mine == wanted == "{}" else in_any_order
        return compared(answer.items, solution.items, same)
    if wanted == "()" and (names := assignments(answer)) is not None and all(map(is_variable, names)):
        by_name = tuple(names[name] for name in sorted(names))
        return in_order(by_name, solution.items, same)
    is_bare_tuple = {mine, wanted} == {",", "()"} and len(solution.items) > 2
    return (mine == wanted or is_bare_tuple) and in_order(answer.items, solution.items, same)


def _plain_kind(items: Items) -> str:
    """The kind of a collection; a list in brackets is a bare one, unless it may be an interval."""
    return "," if items.kind == "[]" and len(items.items) > 2 else items.kind


def _same_ratio(answer: Items, solution: Items, same: Same) -> bool:
    """Whether two ratios are equal up to a common factor."""
    if len(answer.items) != len(solution.items):
        return False
    mine, wanted = ([item[0] for item in items.items] for items in (answer, solution))
    if not all(isinstance(value, Formula) for value in (*mine, *wanted)):
        return in_order(answer.items, solution.items, same)
    if any(equal(value.node, whole(0)) for value in (*mine, *wanted)):
        return in_order(answer.items, solution.items, same)
    first, first_wanted = mine[0].node, wanted[0].node
    for value, other in zip(mine[1:], wanted[1:], strict=True):
        left = operation("multiply", value.node, first_wanted)
        right = operation("multiply", other.node, first)
        if not equal(left, right):
            return False
    return True


def items_for_one(answer: Items, solution: Value, same: Same) -> bool:
    """Whether each member of a list is the one value, or a ratio's quotient is."""
    if answer.kind in (",", "or") and answer.items and all(same(item, (solution,)) for item in answer.items):
        return True
    if _has_one_member(answer):
        return same(answer.items[0], (solution,))
    quotient = _quotient(answer)
    return quotient is not None and same((Formula(quotient),), (solution,))


def one_for_items(answer: Value, solution: Items, same: Same) -> bool:
    """Whether a value is the only member of a set, or the quotient of a ratio."""
    if _has_one_member(solution):
        return same((answer,), solution.items[0])
    quotient = _quotient(solution)
    return quotient is not None and same((answer,), (Formula(quotient),))


def _has_one_member(items: Items) -> bool:
    """Whether a set has one member, which is no collection itself."""
    return items.kind == "{}" and len(items.items) == 1 and not isinstance(items.items[0][0], Items)


def _quotient(items: Items) -> Node | None:
    """The value of a ratio of two numbers; None of any other collection."""
    if items.kind != ":" or len(items.items) != 2:
        return None
    first, second = (item[0] for item in items.items)
    if not (isinstance(first, Formula) and isinstance(second, Formula)):
        return None
    return operation("divide", first.node, second.node)


def items_for_formula(answer: Items, solution: Formula, same: Same) -> bool:
    """Whether a tuple is a vector, or a list means one number, perhaps with a comma before its decimals."""
    if answer.kind == "()" or isinstance(solution.node, Array):
        return answer.kind == "()" and in_order(answer.items, _entries(solution.node, answer), same)
    return items_for_one(answer, solution, same) or _is_decimal_for(answer, solution.node)


def formula_for_items(answer: Formula, solution: Items, same: Same) -> bool:
    """Whether a vector is a tuple, or a number is the one that a list means."""
    if solution.kind == "()" or isinstance(answer.node, Array):
        return solution.kind == "()" and in_order(_entries(answer.node, solution), solution.items, same)
    if _is_long_decimal(solution):
        return equal(answer.node, solution.decimal)
    return one_for_items(answer, solution, same)


def _entries(node: Node, other: Items) -> tuple[Reading, ...]:
    """The entries of a row, a column, or a sum of as many unit vectors as `other` has members; else none."""
    if not isinstance(node, Array):
        found = components(node, len(other.items)) or ()
    elif len(node.rows) == 1:
        found = node.rows[0]
    elif all(len(row) == 1 for row in node.rows):
        found = tuple(row[0] for row in node.rows)
    else:
        found = ()
    return tuple((Formula(entry),) for entry in found)


def _is_decimal_for(answer: Items, solution: Node) -> bool:
    """Whether a list is a number with a comma before its decimals: `2,5` for 5/2."""
    return answer.decimal is not None and _is_fraction(solution) and equal(answer.decimal, solution)


def _is_fraction(node: Node) -> bool:
    """Whether a number is certainly no whole one."""
    return not free_symbols(node) and not (isinstance(node, Number) and node.value.denominator == 1)


def _is_long_decimal(items: Items) -> bool:
    """Whether a list is `0,125`, say, which is no list of 0 and 125."""
    return items.decimal is not None and 0 < items.decimal.value < 1 and items.decimal.decimals > 2


def items_for_words(answer: Items, solution: Words, same: Same) -> bool:
    """Whether a collection is the text `none`, or means it as it means any single value."""
    if answer == _NOTHING:
        return canonical_words(solution) == "none"
    return items_for_one(answer, solution, same)


def words_for_items(answer: Words, solution: Items, same: Same) -> bool:
    """Whether a text is `none` for the empty set, or a value that a collection means."""
    if solution == _NOTHING:
        return canonical_words(answer) == "none"
    return one_for_items(answer, solution, same)
