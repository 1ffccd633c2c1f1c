"""Formulas as quotients of polynomials with rational coefficients: equal if they are one, with no doubt left.

What is no polynomial, as `\\sin x`, is a variable of its own; so two formulas that are one quotient of
polynomials are equal, and two that are not may still be, unless all their variables are real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import comb

from flint import Ordering, fmpq, fmpq_mpoly, fmpq_mpoly_ctx

from realrl.verifier.nodes import Node, Number, Operation, Symbol

MAX_POWER = 64
MAX_VARIABLES = 12
MAX_TERMS = 3000
MAX_PRODUCTS = 100_000
"""The largest number of products of terms in a product of two sums."""


class NotRational(Exception):
    """The formula is too large for this, or divides by nothing but 0."""


@dataclass
class Fields:
    """The quotients of two formulas over the variables of both."""

    atoms: dict[Node, int] = field(default_factory=dict)
    """Each node that is no sum, product, quotient or whole power, and its place among the variables."""

    def collect(self, node: Node) -> None:
        """Note the variables of a formula.

        Raises:
            NotRational: there are too many.
        """
        match node:
            case Number():
                return
            case Operation("add" | "multiply" | "divide" | "negative", operands):
                for operand in operands:
                    self.collect(operand)
                return
            case Operation("power", (base, _)) if _whole_exponent(node) is not None:
                self.collect(base)
                return
        self.atoms.setdefault(node, len(self.atoms))
        if len(self.atoms) > MAX_VARIABLES:
            raise NotRational("too many variables")

    @property
    def is_decisive(self) -> bool:
        """Whether all variables are real ones: then two quotients that differ are never equal."""
        return all(isinstance(atom, Symbol) for atom in self.atoms)


def same_quotient(left: Node, right: Node) -> tuple[bool, bool]:
    """`(whether both are one quotient of polynomials, whether a no is certain)`.

    Raises:
        NotRational: one is too large, or divides by 0.
    """
    fields = Fields()
    fields.collect(left)
    fields.collect(right)
    names = [f"x{place}" for place in range(len(fields.atoms))] or ["x0"]
    context = fmpq_mpoly_ctx.get(names, Ordering.lex)
    first, second = (_Quotients(fields, context).of(node) for node in (left, right))
    difference = _times(first[0], second[1]) - _times(second[0], first[1])
    return difference == 0, fields.is_decisive


def is_zero_polynomial(node: Node) -> bool:
    """Whether a formula is the polynomial 0, with no doubt left."""
    try:
        return same_quotient(node, Number(Fraction(0)))[0]
    except NotRational:
        return False


class _Quotients:
    """Turns formulas into `(numerator, denominator)`."""

    def __init__(self, fields: Fields, context: fmpq_mpoly_ctx) -> None:
        self._fields, self._context = fields, context
        self._one = context.constant(fmpq(1))

    def of(self, node: Node) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        match node:
            case Number(value=value):
                return self._context.constant(_fmpq(value)), self._one
            case Operation("negative", (inner,)):
                top, bottom = self.of(inner)
                return -top, bottom
            case Operation("add", operands):
                return self._sum(operands)
            case Operation("multiply", operands):
                return self._product(operands)
            case Operation("divide", (left, right)):
                return _divided(self.of(left), self.of(right))
            case Operation("power", (base, _)) if (exponent := _whole_exponent(node)) is not None:
                return self._power(base, exponent)
        return self._context.gens()[self._fields.atoms[node]], self._one

    def _sum(self, operands: tuple[Node, ...]) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        top, bottom = self.of(operands[0])
        for operand in operands[1:]:
            more, below = self.of(operand)
            if below == bottom:
                top = _bounded(top + more)
            else:
                top, bottom = _bounded(_times(top, below) + _times(more, bottom)), _times(bottom, below)
        return top, bottom

    def _product(self, operands: tuple[Node, ...]) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        top, bottom = self._one, self._one
        for operand in operands:
            more, below = self.of(operand)
            top, bottom = _times(top, more), _times(bottom, below)
        return top, bottom

    def _power(self, base: Node, exponent: int) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        top, bottom = self.of(base)
        if exponent < 0:
            top, bottom, exponent = *_divided((self._one, self._one), (top, bottom)), -exponent
        if any(_terms_of_power(each, exponent) > MAX_TERMS for each in (top, bottom)):
            raise NotRational("a power of a long sum")
        return _bounded(top**exponent), _bounded(bottom**exponent)


def _divided(
    left: tuple[fmpq_mpoly, fmpq_mpoly], right: tuple[fmpq_mpoly, fmpq_mpoly]
) -> tuple[fmpq_mpoly, fmpq_mpoly]:
    if right[0] == 0:
        raise NotRational("a division by 0")
    return _times(left[0], right[1]), _times(left[1], right[0])


def _terms_of_power(polynomial: fmpq_mpoly, exponent: int) -> int:
    """The most terms that a power can have."""
    return comb(exponent + len(polynomial) - 1, exponent) if len(polynomial) else 0


def _times(left: fmpq_mpoly, right: fmpq_mpoly) -> fmpq_mpoly:
    if len(left) * len(right) > MAX_PRODUCTS:
        raise NotRational("a product of long sums")
    return _bounded(left * right)


def _bounded(polynomial: fmpq_mpoly) -> fmpq_mpoly:
    if len(polynomial) > MAX_TERMS:
        raise NotRational("too many terms")
    return polynomial


def _whole_exponent(node: Operation) -> int | None:
    match node.operands[1]:
        case Number(value=value) if value.denominator == 1 and 0 < abs(value) <= MAX_POWER:
            return int(value)
    return None


def _fmpq(value: Fraction) -> fmpq:
    return fmpq(value.numerator, value.denominator)
