"""Whether a number made of rational numbers, roots and arithmetic is 0, with no doubt left.

A number of this kind that is not 0 is not smaller than a bound that its formula gives, so a ball below the
bound that contains 0 is 0. Source: Burnikel, Fleischer, Mehlhorn and Schirra 2000, "A strong and easily
computable separation bound for arithmetic expressions involving radicals".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, log2

from flint import arb, ctx

from realrl.verifier.arithmetic import NoValue, ball
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Constant, Node, Number, Operation

MAX_BITS = 30_000
"""The largest precision that is worth computing to; it takes a fraction of a millisecond."""
_SPARE_BITS = 128


class NotAlgebraic(Exception):
    """The formula has more than rational numbers, roots and arithmetic."""


@dataclass
class _Bounds:
    """Logarithms to base 2 of the bounds of a numerator and a denominator, and the degree of all radicals."""

    radicals: dict[Node, int] = field(default_factory=dict)

    def of(self, node: Node) -> tuple[float, float]:
        match node:
            case Number(value=value):
                return log2(abs(value.numerator) or 1), log2(value.denominator)
            case Constant("i"):
                self.radicals[node] = 2
                return 0.0, 0.0
            case Operation("negative", (inner,)):
                return self.of(inner)
            case Operation("add", operands):
                return self._sum([self.of(operand) for operand in operands])
            case Operation("multiply", operands):
                parts = [self.of(operand) for operand in operands]
                return sum(top for top, _ in parts), sum(bottom for _, bottom in parts)
            case Operation("divide", (left, right)):
                (top, bottom), (below, above) = self.of(left), self.of(right)
                return top + above, bottom + below
            case Operation("power", (base, exponent)):
                return self._power(node, base, exponent)
            case Operation("sqrt" | "cbrt" as name, (inner,)):
                return self._root(node, self.of(inner), 2 if name == "sqrt" else 3)
            case Operation("root", (inner, Number(value=degree))) if degree.denominator == 1 and degree > 1:
                return self._root(node, self.of(inner), int(degree))
        raise NotAlgebraic

    def _sum(self, parts: list[tuple[float, float]]) -> tuple[float, float]:
        """The bounds of a sum, whose denominator is the product of all denominators."""
        bottom = sum(below for _, below in parts)
        tops = [above + bottom - below for above, below in parts]
        return max(tops) + log2(len(tops)), bottom

    def _power(self, node: Node, base: Node, exponent: Node) -> tuple[float, float]:
        top, bottom = self.of(base)
        power, degree = _fraction(exponent)
        if power < 0:
            top, bottom, power = bottom, top, -power
        top, bottom = top * power, bottom * power
        return (top, bottom) if degree == 1 else self._root(node, (top, bottom), degree)

    def _root(self, node: Node, inner: tuple[float, float], degree: int) -> tuple[float, float]:
        self.radicals[node] = degree
        top, bottom = inner
        if top >= bottom:
            return (top + (degree - 1) * bottom) / degree, bottom
        return top, ((degree - 1) * top + bottom) / degree

    @property
    def degree(self) -> float:
        total = 1.0
        for degree in self.radicals.values():
            total *= degree
        return total


def _fraction(exponent: Node) -> tuple[int, int]:
    """A rational exponent as `(numerator, denominator)`."""
    match exponent:
        case Number(value=value):
            return value.numerator, value.denominator
        case Operation("negative", (inner,)):
            top, bottom = _fraction(inner)
            return -top, bottom
        case Operation("divide", (Number(value=top), Number(value=bottom))) if bottom:
            value = top / bottom
            return value.numerator, value.denominator
    raise NotAlgebraic


def is_zero(node: Node) -> bool | None:
    """Whether a formula without variables is 0; None where its kind, or its bound's size, tells nothing."""
    try:
        bounds = _Bounds()
        top, bottom = (max(part, 0.0) for part in bounds.of(node))
        bits = bottom + (bounds.degree - 1) * top
    except (NotAlgebraic, OverflowError):
        return None
    if not bits < min(MAX_BITS, inf):
        return None
    try:
        value = ball(evaluated(node, {}, int(bits) + _SPARE_BITS))
    except NoValue:
        return None
    with ctx.workprec(64):
        if not value.contains(0):
            return False
        return True if bool(value.abs_upper() < arb(2) ** -int(bits + 1)) else None
