"""Whether two relations are the same: side by side, or as one equation up to a constant factor."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from flint import fmpq

from realrl.verifier.arithmetic import NoValue
from realrl.verifier.equality import APART, compared_at, equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.members import Same
from realrl.verifier.nodes import Node, Number, free_symbols, negative, operation, substituted, whole
from realrl.verifier.points import points, variable_kinds
from realrl.verifier.tree import Formula, Reading, Relation

_MAX_BITS = 4096
"""The largest size of a factor between two equations."""


def same_relation(answer: Relation, solution: Relation, same: Same) -> bool:
    """Whether two relations have the same sides, or are one equation up to a constant factor."""
    if answer.operators != solution.operators:
        return False
    if all(map(same, answer.sides, solution.sides)):
        return True
    if set(answer.operators) <= {"=", "!="} and all(map(same, answer.sides[::-1], solution.sides)):
        return True
    return answer.operators == ("=",) and _same_equation(answer, solution)


def _same_equation(answer: Relation, solution: Relation) -> bool:
    """Whether the difference of the sides of one is a constant, not 0, times that of the other."""
    mine, wanted = _difference(answer.sides), _difference(solution.sides)
    if mine is None or wanted is None:
        return False
    names = free_symbols(mine)
    if not names or names != free_symbols(wanted):
        return False
    factor = _ratio_at_a_point(mine, wanted)
    # The difference of an identity is 0 or a ball around it, and 0 times the wanted one is that as well.
    if factor is None or compared_at(factor, whole(0), {}) is not APART:
        return False
    return equal(mine, operation("multiply", factor, wanted))


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
