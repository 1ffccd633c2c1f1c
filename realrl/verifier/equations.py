"""Compares relations: side by side, or as one equation or order up to a factor."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flint import fmpq

from realrl.verifier.arithmetic import NoValue, is_real
from realrl.verifier.equality import APART, compared_at, equal
from realrl.verifier.evaluation import Point, evaluated
from realrl.verifier.members import Same
from realrl.verifier.nodes import Node, Number, free_symbols, negative, operation, substituted, whole
from realrl.verifier.points import points, variable_kinds
from realrl.verifier.tree import Formula, Reading, Relation

_STRICT = {"<": True, ">": True, "<=": False, ">=": False}
"""Whether each order excludes equality."""
_RATIO_BITS = 128
"""The precision at which it is found out whether values are rational."""
_MAX_BITS = 4096
"""The largest size of a factor between two equations."""


def same_relation(answer: Relation, solution: Relation, same: Same) -> bool:
    """Return whether two relations have the same sides, or differ by a constant factor.

    The factor between two orders is positive.
    """
    operators = answer.operators
    are_alike = operators == solution.operators
    if are_alike and _same_sides(answer, solution, same):
        return True
    if len(operators) != 1:
        return False
    if len(solution.operators) != 1:
        return False
    if are_alike and operators == ("=",):
        mine = _difference(answer.sides)
        wanted = _difference(solution.sides)
        return _factor_between(mine, wanted) is not None
    return _same_order(answer, solution)


def _same_sides(answer: Relation, solution: Relation, same: Same) -> bool:
    """Return whether two relations with the same operators have the same sides."""
    if all(map(same, answer.sides, solution.sides)):
        return True
    is_symmetric = set(answer.operators) <= {"=", "!="}
    if not is_symmetric:
        return False
    return all(map(same, reversed(answer.sides), solution.sides))


def _same_order(answer: Relation, solution: Relation) -> bool:
    """Return whether an order is a positive constant times another: `2x - y <= 3` for `y >= 2x - 3`."""
    is_strict = _STRICT.get(answer.operators[0])
    wanted_is_strict = _STRICT.get(solution.operators[0])
    if is_strict is None or is_strict != wanted_is_strict:
        return False
    mine = _below_zero(answer)
    wanted = _below_zero(solution)
    factor = _factor_between(mine, wanted)
    return factor is not None and _is_positive(factor)


def _below_zero(order: Relation) -> Node | None:
    """Return the formula that is below 0 by an order; None if a side is not a formula."""
    is_ascending = order.operators[0] in ("<", "<=")
    sides = order.sides if is_ascending else order.sides[::-1]
    return _difference(sides)


def _factor_between(mine: Node | None, wanted: Node | None) -> Node | None:
    """Return the constant, not 0, by which `wanted` is multiplied to give `mine`; None if there is none."""
    if mine is None or wanted is None:
        return None
    names = free_symbols(mine)
    if not names or names != free_symbols(wanted):
        return None
    factor = _ratio_at_a_point(mine, wanted)
    # The difference of an identity is 0 or a ball around it, and 0 times the wanted one is that as well.
    if factor is None:
        return None
    if compared_at(factor, whole(0), {}) is not APART:
        return None
    multiple = operation("multiply", factor, wanted)
    if equal(mine, multiple):
        return factor
    return None


def _is_positive(factor: Node) -> bool:
    """Return whether a constant certainly is a real number above 0."""
    try:
        value = evaluated(factor, {}, _MAX_BITS)
    except NoValue:
        return False
    if isinstance(value, fmpq):
        return value > 0
    if not is_real(value):
        return False
    return bool(value.real > 0)


def _difference(sides: Sequence[Reading]) -> Node | None:
    """Return the left side minus the right side; None if one is not a formula."""
    left = sides[0][0]
    right = sides[1][0]
    if not (isinstance(left, Formula) and isinstance(right, Formula)):
        return None
    return operation("add", left.node, negative(right.node))


def _ratio_at_a_point(first: Node, second: Node) -> Node | None:
    """Return the ratio of two formulas at the first point that has one; None if no point has."""
    kinds = variable_kinds(free_symbols(first), (first, second))
    for point, _ in points(kinds, (first, second)):
        try:
            above = evaluated(first, point, _RATIO_BITS)
            below = evaluated(second, point, _RATIO_BITS)
        except NoValue:
            continue
        if isinstance(above, fmpq) and isinstance(below, fmpq):
            if above == 0 or below == 0:
                continue
            ratio = above / below
            is_small = ratio.height_bits() <= _MAX_BITS
            return _number(ratio) if is_small else None
        # The ratio is not rational, so it stays a formula, which is exact at a rational point.
        at = _rational_values(point)
        if at is not None:
            return operation("divide", substituted(first, at), substituted(second, at))
    return None


def _rational_values(point: Point) -> dict[str, Number] | None:
    """Return the values of a point's variables as nodes; None if one is not rational."""
    found: dict[str, Number] = {}
    for name, value in point.items():
        if not isinstance(value, fmpq):
            return None
        found[name] = _number(value)
    return found


def _number(value: fmpq) -> Number:
    return Number(Fraction(int(value.p), int(value.q)))
