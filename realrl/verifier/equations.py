"""Whether two relations are the same: side by side, or as one equation or order up to a factor."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flint import fmpq

from realrl.verifier.arithmetic import NoValue, is_real
from realrl.verifier.equality import APART, compared_at, equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.members import Same
from realrl.verifier.nodes import Node, Number, free_symbols, negative, operation, substituted, whole
from realrl.verifier.points import points, variable_kinds
from realrl.verifier.tree import Formula, Reading, Relation

_STRICT = {"<": True, ">": True, "<=": False, ">=": False}
_MAX_BITS = 4096
"""The largest size of a factor between two equations."""


def same_relation(answer: Relation, solution: Relation, same: Same) -> bool:
    """Whether two relations have the same sides, or are one up to a constant, for an order a positive one."""
    if answer.operators == solution.operators:
        if all(map(same, answer.sides, solution.sides)):
            return True
        if set(answer.operators) <= {"=", "!="} and all(map(same, answer.sides[::-1], solution.sides)):
            return True
    if len(answer.operators) != 1 or len(solution.operators) != 1:
        return False
    if answer.operators == solution.operators == ("=",):
        return _factor_between(_difference(answer.sides), _difference(solution.sides)) is not None
    return _same_order(answer, solution)


def _same_order(answer: Relation, solution: Relation) -> bool:
    """Whether an order is a positive constant times another: `2x - y <= 3` for `y >= 2x - 3`."""
    (operator,), (wanted_operator,) = answer.operators, solution.operators
    if _STRICT.get(operator) is None or _STRICT.get(operator) != _STRICT.get(wanted_operator):
        return False
    factor = _factor_between(_below_zero(answer), _below_zero(solution))
    return factor is not None and _is_positive(factor)


def _below_zero(order: Relation) -> Node | None:
    """The formula that an order says to be below 0."""
    return _difference(order.sides if order.operators[0] in ("<", "<=") else order.sides[::-1])


def _factor_between(mine: Node | None, wanted: Node | None) -> Node | None:
    """The constant, not 0, that one formula is another one times; None where there is none."""
    if mine is None or wanted is None:
        return None
    names = free_symbols(mine)
    if not names or names != free_symbols(wanted):
        return None
    factor = _ratio_at_a_point(mine, wanted)
    # The difference of an identity is 0 or a ball around it, and 0 times the wanted one is that as well.
    if factor is None or compared_at(factor, whole(0), {}) is not APART:
        return None
    return factor if equal(mine, operation("multiply", factor, wanted)) else None


def _is_positive(factor: Node) -> bool:
    """Whether a constant certainly is a real number above 0."""
    try:
        value = evaluated(factor, {}, _MAX_BITS)
    except NoValue:
        return False
    return value > 0 if isinstance(value, fmpq) else is_real(value) and bool(value.real > 0)


def _difference(sides: Sequence[Reading]) -> Node | None:
    """The left side minus the right one, where both are formulas."""
    left, right = (side[0] for side in sides)
    if not (isinstance(left, Formula) and isinstance(right, Formula)):
        return None
    return operation("add", left.node, negative(right.node))


def _ratio_at_a_point(first: Node, second: Node) -> Node | None:
    """The ratio of two formulas at some rational point, exactly where it is rational."""
    kinds = variable_kinds(free_symbols(first), (first, second))
    for point, _ in points(kinds, (first, second)):
        try:
            above, below = evaluated(first, point, 128), evaluated(second, point, 128)
        except NoValue:
            continue
        if isinstance(above, fmpq) and isinstance(below, fmpq):
            if above != 0 and below != 0:
                ratio = above / below
                return _number(ratio) if ratio.height_bits() <= _MAX_BITS else None
        elif all(isinstance(value, fmpq) for value in point.values()):
            at = {name: _number(value) for name, value in point.items()}
            return operation("divide", substituted(first, at), substituted(second, at))
    return None


def _number(value: fmpq) -> Number:
    return Number(Fraction(int(value.p), int(value.q)))
