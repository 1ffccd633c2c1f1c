"""Compares formulas as quotients of polynomials with rational coefficients.

A part that is no polynomial, as `\\sin x`, is a variable of its own. Two formulas that are one quotient of
polynomials are therefore equal for certain. Two that are not may still be equal, unless all their variables
are real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import comb

from flint import Ordering, fmpq, fmpq_mpoly, fmpq_mpoly_ctx

from realrl.verifier.nodes import Node, Number, Operation, Symbol

MAX_POWER = 64
"""The largest whole exponent that is multiplied out."""
MAX_VARIABLES = 12
MAX_TERMS = 3000
MAX_PRODUCTS = 100_000
"""The largest number of products of terms in a product of two sums."""


class NotRational(Exception):
    """The formula is too large for polynomials, or divides by 0."""


@dataclass
class Fields:
    """The quotients of two formulas over the variables of both."""

    atoms: dict[Node, int] = field(default_factory=dict)
    """Each node that is no sum, product, quotient or whole power, and its place among the variables."""

    def collect(self, node: Node) -> None:
        """Give each variable of a formula its place.

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
        """Whether all variables are symbols: then two quotients that differ are never equal."""
        return all(isinstance(atom, Symbol) for atom in self.atoms)


def same_quotient(left: Node, right: Node) -> tuple[bool, bool]:
    """Return `(whether both are one quotient of polynomials, whether a no is certain)`.

    Raises:
        NotRational: one is too large, or divides by 0.
    """
    fields = Fields()
    fields.collect(left)
    fields.collect(right)
    # FLINT needs one variable at least.
    num_variables = max(len(fields.atoms), 1)
    names = [f"x{place}" for place in range(num_variables)]
    context = fmpq_mpoly_ctx.get(names, Ordering.lex)
    quotients = _Quotients(fields, context)
    left_top, left_bottom = quotients.of(left)
    right_top, right_bottom = quotients.of(right)
    difference = _times(left_top, right_bottom) - _times(right_top, left_bottom)
    return difference == 0, fields.is_decisive


def is_zero_polynomial(node: Node) -> bool:
    """Return whether a formula is the polynomial 0 for certain."""
    zero = Number(Fraction(0))
    try:
        is_same, _ = same_quotient(node, zero)
    except NotRational:
        return False
    return is_same


class _Quotients:
    """Turns formulas into `(numerator, denominator)`."""

    def __init__(self, fields: Fields, context: fmpq_mpoly_ctx) -> None:
        self._fields = fields
        self._context = context
        self._one = context.constant(fmpq(1))

    def of(self, node: Node) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        """Return the numerator and the denominator of a formula."""
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
        place = self._fields.atoms[node]
        variable = self._context.gens()[place]
        return variable, self._one

    def _sum(self, operands: tuple[Node, ...]) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        top, bottom = self.of(operands[0])
        for operand in operands[1:]:
            more, below = self.of(operand)
            if below == bottom:
                top = _bounded(top + more)
            else:
                top = _bounded(_times(top, below) + _times(more, bottom))
                bottom = _times(bottom, below)
        return top, bottom

    def _product(self, operands: tuple[Node, ...]) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        top = self._one
        bottom = self._one
        for operand in operands:
            more, below = self.of(operand)
            top = _times(top, more)
            bottom = _times(bottom, below)
        return top, bottom

    def _power(self, base: Node, exponent: int) -> tuple[fmpq_mpoly, fmpq_mpoly]:
        top, bottom = self.of(base)
        if exponent < 0:
            one = (self._one, self._one)
            top, bottom = _divided(one, (top, bottom))
            exponent = -exponent
        num_terms = max(_terms_of_power(top, exponent), _terms_of_power(bottom, exponent))
        if num_terms > MAX_TERMS:
            raise NotRational("a power of a long sum")
        return _bounded(top**exponent), _bounded(bottom**exponent)


def _divided(
    left: tuple[fmpq_mpoly, fmpq_mpoly], right: tuple[fmpq_mpoly, fmpq_mpoly]
) -> tuple[fmpq_mpoly, fmpq_mpoly]:
    left_top, left_bottom = left
    right_top, right_bottom = right
    if right_top == 0:
        raise NotRational("a division by 0")
    return _times(left_top, right_bottom), _times(left_bottom, right_top)


def _terms_of_power(polynomial: fmpq_mpoly, exponent: int) -> int:
    """Return an upper limit of the number of terms of a power."""
    num_terms = len(polynomial)
    if num_terms == 0:
        return 0
    return comb(exponent + num_terms - 1, exponent)


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
