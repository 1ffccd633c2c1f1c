"""Equations that are one up to a constant factor."""

from __future__ import annotations

from flint import fmpq

from realrl.verifier.arithmetic import NoValue
from realrl.verifier.equality import APART, compared_at, equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, Number, free_symbols, negative, operation, substituted, whole
from realrl.verifier.points import points, variable_kinds

_MAX_BITS = 4096
"""Of a factor between two equations."""


def same_equation(answer: tuple[Node, Node] | None, solution: tuple[Node, Node] | None) -> bool:
    """Whether the difference of the sides of one is a constant, not 0, times that of the other."""
    if answer is None or solution is None:
        return False
    mine, wanted = (operation("add", left, negative(right)) for left, right in (answer, solution))
    names = free_symbols(mine)
    if not names or names != free_symbols(wanted):
        return False
    factor = _ratio_at_a_point(mine, wanted)
    # The difference of an identity is 0 or a ball around it, and 0 times the wanted one is that as well.
    if factor is None or compared_at(factor, whole(0), {}) is not APART:
        return False
    return equal(mine, operation("multiply", factor, wanted))


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
    from fractions import Fraction

    return Number(Fraction(int(value.p), int(value.q)))
