"""Compares lists, sets, tuples and ratios with each other and with single values."""

from __future__ import annotations

from itertools import chain

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
    """Return whether two collections have the same members, in order where their kinds require it."""
    if _NOTHING in (answer, solution):
        return answer == solution
    if answer.kind == solution.kind == ":":
        return _same_ratio(answer, solution, same)
    members = answer.items
    wanted_members = solution.items
    mine = _plain_kind(answer)
    wanted = _plain_kind(solution)
    if mine in _UNORDERED and wanted in _UNORDERED:
        are_points = all(map(_is_collection, wanted_members))
        are_sets = mine == wanted == "{}"
        compared = as_sets if are_points or are_sets else in_any_order
        return compared(members, wanted_members, same)
    if wanted == "()":
        by_name = _values_by_name(answer)
        if by_name is not None:
            return in_order(by_name, wanted_members, same)
    # Two members without brackets may be two answers; more are taken for a tuple.
    is_bare_tuple = {mine, wanted} == {",", "()"} and len(wanted_members) > 2
    if mine != wanted and not is_bare_tuple:
        return False
    return in_order(members, wanted_members, same)


def _is_collection(member: Reading) -> bool:
    return isinstance(member[0], Items)


def _values_by_name(items: Items) -> tuple[Reading, ...] | None:
    """Return the values of `y = 2, x = 1` in the order of their variables; None of any other collection."""
    values = assignments(items)
    if values is None or not all(map(is_variable, values)):
        return None
    in_order_of_names = [values[name] for name in sorted(values)]
    return tuple(in_order_of_names)


def _plain_kind(items: Items) -> str:
    """Return the kind of a collection; a list in brackets is a bare list, unless it may be an interval."""
    is_bare = items.kind == "[]" and len(items.items) > 2
    return "," if is_bare else items.kind


def _same_ratio(answer: Items, solution: Items, same: Same) -> bool:
    """Return whether two ratios are equal up to a common factor."""
    if len(answer.items) != len(solution.items):
        return False
    mine = _nonzero_formulas(answer)
    wanted = _nonzero_formulas(solution)
    if mine is None or wanted is None:
        return in_order(answer.items, solution.items, same)
    # Products compare the quotients without a division.
    for node, other in zip(mine[1:], wanted[1:], strict=True):
        left = operation("multiply", node, wanted[0])
        right = operation("multiply", other, mine[0])
        if not equal(left, right):
            return False
    return True


def _nonzero_formulas(items: Items) -> list[Node] | None:
    """Return the formulas that the members of a collection are; None if one is another value, or 0."""
    nodes: list[Node] = []
    for item in items.items:
        value = item[0]
        if not isinstance(value, Formula):
            return None
        if equal(value.node, whole(0)):
            return None
        nodes.append(value.node)
    return nodes


def items_for_one(answer: Items, solution: Value, same: Same) -> bool:
    """Return whether every member of a list is the single value, or the quotient of a ratio is."""
    members = answer.items
    wanted = (solution,)
    if answer.kind in (",", "or") and members:
        if all(same(member, wanted) for member in members):
            return True
    if _has_one_member(answer):
        return same(members[0], wanted)
    quotient = _quotient(answer)
    if quotient is None:
        return False
    return same((Formula(quotient),), wanted)


def one_for_items(answer: Value, solution: Items, same: Same) -> bool:
    """Return whether a value is the only member of a set, or the quotient of a ratio."""
    if _has_one_member(solution):
        return same((answer,), solution.items[0])
    quotient = _quotient(solution)
    if quotient is None:
        return False
    return same((answer,), (Formula(quotient),))


def _has_one_member(items: Items) -> bool:
    """Return whether a set has one member that is not a collection itself."""
    if items.kind != "{}" or len(items.items) != 1:
        return False
    (member,) = items.items
    return not _is_collection(member)


def _quotient(items: Items) -> Node | None:
    """Return the value of a ratio of two numbers; None of any other collection."""
    if items.kind != ":" or len(items.items) != 2:
        return None
    first, second = items.items
    top = first[0]
    bottom = second[0]
    if not (isinstance(top, Formula) and isinstance(bottom, Formula)):
        return None
    return operation("divide", top.node, bottom.node)


def items_for_formula(answer: Items, solution: Formula, same: Same) -> bool:
    """Return whether a tuple is a vector, or a list means one number, perhaps with a decimal comma."""
    if answer.kind == "()":
        entries = _entries(solution.node, answer)
        return in_order(answer.items, entries, same)
    if isinstance(solution.node, Array):
        return False
    if items_for_one(answer, solution, same):
        return True
    return _is_decimal_for(answer, solution.node)


def formula_for_items(answer: Formula, solution: Items, same: Same) -> bool:
    """Return whether a vector is a tuple, or a number is the one that a list means."""
    if solution.kind == "()":
        entries = _entries(answer.node, solution)
        return in_order(entries, solution.items, same)
    if isinstance(answer.node, Array):
        return False
    decimal = solution.decimal
    if decimal is not None and _is_long_decimal(decimal):
        return equal(answer.node, decimal)
    return one_for_items(answer, solution, same)


def _entries(node: Node, other: Items) -> tuple[Reading, ...]:
    """Return the entries of a row, a column or a sum of unit vectors; none of any other formula.

    A sum may use as many unit vectors as `other` has members.
    """
    if isinstance(node, Array):
        found = _vector(node)
    else:
        found = components(node, len(other.items)) or ()
    return tuple((Formula(entry),) for entry in found)


def _vector(array: Array) -> tuple[Node, ...]:
    """Return the entries of an array with one row or one column; none of any other."""
    rows = array.rows
    if len(rows) == 1:
        return rows[0]
    if all(len(row) == 1 for row in rows):
        return tuple(chain.from_iterable(rows))
    return ()


def _is_decimal_for(answer: Items, solution: Node) -> bool:
    """Return whether a list is a number with a comma before its decimals: `2,5` for 5/2."""
    if answer.decimal is None or not _is_fraction(solution):
        return False
    return equal(answer.decimal, solution)


def _is_fraction(node: Node) -> bool:
    """Return whether a formula has no variables and is not written as a whole number."""
    if isinstance(node, Number) and node.value.denominator == 1:
        return False
    return not free_symbols(node)


def _is_long_decimal(decimal: Number) -> bool:
    """Return whether a number with a comma is one as `0,125`, which nobody writes for a list of 0 and 125."""
    if not 0 < decimal.value < 1:
        return False
    return decimal.decimals > 2


def items_for_words(answer: Items, solution: Words, same: Same) -> bool:
    """Return whether the empty set is the text `none`, or a collection means the text as its only value."""
    if answer == _NOTHING:
        return canonical_words(solution) == "none"
    return items_for_one(answer, solution, same)


def words_for_items(answer: Words, solution: Items, same: Same) -> bool:
    """Return whether a text is `none` for the empty set, or a value that a collection means."""
    if solution == _NOTHING:
        return canonical_words(answer) == "none"
    return one_for_items(answer, solution, same)
