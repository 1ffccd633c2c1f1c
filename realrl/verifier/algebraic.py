"""Decides for certain whether a number made of rational numbers, roots and arithmetic is 0.

If such a number is not 0, it is at least a bound that follows from its formula. So it is 0 if a ball around
it contains 0 and is smaller than the bound.

Source: Burnikel, Fleischer, Mehlhorn and Schirra 2000, "A strong and easily computable separation bound for
arithmetic expressions involving radicals".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log2

from flint import arb, ctx

from realrl.verifier.arithmetic import NoValue, ball
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Constant, Node, Number, Operation

MAX_BITS = 30_000
"""The largest precision to compute to; it takes a fraction of a millisecond."""
_SPARE_BITS = 128
"""Bits beyond the bound, for the rounding errors of the evaluation."""


class NotAlgebraic(Exception):
    """The formula contains more than rational numbers, roots and arithmetic."""


@dataclass
class _Bounds:
    """Computes the bounds of a formula and collects its radicals.

    Bounds are logarithms to base 2 of those of a numerator and a denominator.
    """

    radicals: dict[Node, int] = field(default_factory=dict)
    """The degree of each radical; one that occurs twice counts once."""

    def of(self, node: Node) -> tuple[float, float]:
        """Return the bounds of a formula.

        Raises:
            NotAlgebraic: The formula contains more than rational numbers, roots and arithmetic.
        """
        match node:
            case Number(value=value):
                size = abs(value.numerator) or 1
                return log2(size), log2(value.denominator)
            case Constant("i"):
                self.radicals[node] = 2
                return 0.0, 0.0
            case Operation("negative", (inner,)):
                return self.of(inner)
            case Operation("add", operands):
                return self._sum(list(map(self.of, operands)))
            case Operation("multiply", operands):
                return self._product(list(map(self.of, operands)))
            case Operation("divide", (left, right)):
                top, bottom = self.of(left)
                divisor_top, divisor_bottom = self.of(right)
                return top + divisor_bottom, bottom + divisor_top
            case Operation("power", (base, exponent)):
                return self._power(node, base, exponent)
            case Operation("sqrt", (inner,)):
                return self._root(node, self.of(inner), 2)
            case Operation("cbrt", (inner,)):
                return self._root(node, self.of(inner), 3)
            case Operation("root", (inner, Number(value=degree))) if degree.denominator == 1 and degree > 1:
                return self._root(node, self.of(inner), int(degree))
        raise NotAlgebraic

    def _product(self, parts: list[tuple[float, float]]) -> tuple[float, float]:
        """Return the bounds of a product."""
        tops, bottoms = zip(*parts)
        return sum(tops), sum(bottoms)

    def _sum(self, parts: list[tuple[float, float]]) -> tuple[float, float]:
        """Return the bounds of a sum, whose denominator is the product of all denominators."""
        _, bottoms = zip(*parts)
        bottom = sum(bottoms)
        tops = [above + bottom - below for above, below in parts]
        largest = max(tops)
        return largest + log2(len(tops)), bottom

    def _power(self, node: Node, base: Node, exponent: Node) -> tuple[float, float]:
        top, bottom = self.of(base)
        power, degree = _fraction(exponent)
        if power < 0:
            top, bottom = bottom, top
            power = -power
        bounds = (top * power, bottom * power)
        if degree == 1:
            return bounds
        return self._root(node, bounds, degree)

    def _root(self, node: Node, inner: tuple[float, float], degree: int) -> tuple[float, float]:
        self.radicals[node] = degree
        top, bottom = inner
        # Numerator or denominator becomes rational, whichever keeps the bounds smaller.
        if top >= bottom:
            rational_top = (top + (degree - 1) * bottom) / degree
            return rational_top, bottom
        rational_bottom = ((degree - 1) * top + bottom) / degree
        return top, rational_bottom

    @property
    def degree(self) -> float:
        """The product of the degrees of all radicals."""
        total = 1.0
        for degree in self.radicals.values():
            total *= degree
        return total


def _fraction(exponent: Node) -> tuple[int, int]:
    """Return a rational exponent as `(numerator, denominator)`.

    Raises:
        NotAlgebraic: The exponent is not a rational number.
    """
    match exponent:
        case Number(value=value):
            return value.as_integer_ratio()
        case Operation("negative", (inner,)):
            top, bottom = _fraction(inner)
            return -top, bottom
        case Operation("divide", (Number(value=top), Number(value=bottom))) if bottom:
            quotient = top / bottom
            return quotient.as_integer_ratio()
    raise NotAlgebraic


def is_zero(node: Node) -> bool | None:
    """Return whether a formula without variables is 0; None if that cannot be decided.

    It cannot if the formula is not algebraic, or if its bound needs more than `MAX_BITS`.
    """
    try:
        bounds = _Bounds()
        top, bottom = bounds.of(node)
        bits_of_top = (bounds.degree - 1) * max(top, 0.0)
        bits = max(bottom, 0.0) + bits_of_top
    except (NotAlgebraic, OverflowError):
        return None
    # So written, the comparison also rejects a bound that is not a number.
    if not bits < MAX_BITS:
        return None
    precision = int(bits) + _SPARE_BITS
    try:
        value = ball(evaluated(node, {}, precision))
    except NoValue:
        return None
    with ctx.workprec(64):
        if not value.contains(0):
            return False
        bound = arb(2) ** -int(bits + 1)
        is_below_bound = bool(value.abs_upper() < bound)
    return True if is_below_bound else None
