"""Decimals that stand for a number with more digits than they show."""

from __future__ import annotations

from fractions import Fraction

from flint import arb, ctx, fmpq

from realrl.verifier.arithmetic import NoValue, Scalar
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, Number, free_symbols

ANSWER_DIGITS = 6
"""The least number of significant digits of an answer that stand for a number with infinitely many."""
SOLUTION_DIGITS = 10
"""The least number of significant digits of a solution that stand for an exact answer."""
_PRECISION = 4096


def stands_for(decimal: Node, exact: Node, least_digits: int) -> bool:
    """Whether `decimal` has so many digits, and is `exact` rounded or cut off where it ends."""
    if not isinstance(decimal, Number) or decimal.value.denominator == 1 or free_symbols(exact):
        return False
    if _significant_digits(decimal) < least_digits or isinstance(exact, Number) and exact.decimals:
        return False
    try:
        value = evaluated(exact, {}, _PRECISION)
    except NoValue:
        return False
    with ctx.workprec(_PRECISION):
        return _rounds_to(value, decimal)


def _significant_digits(number: Number) -> int:
    return len(str(abs(number.value) * 10**number.decimals).partition("/")[0].lstrip("0"))


def _rounds_to(value: Scalar, shown: Number) -> bool:
    if not isinstance(value, fmpq) and not value.imag.is_zero():
        return False
    exact = arb(value) if isinstance(value, fmpq) else value.real
    unit = Fraction(1, 10**shown.decimals)
    if isinstance(value, fmpq) and (value * 10**shown.decimals).q == 1:
        return False
    missing = abs(exact) - _arb(abs(shown.value))
    has_same_sign = bool(exact > 0) == (shown.value > 0)
    return has_same_sign and bool(missing >= _arb(-unit / 2)) and bool(missing < _arb(unit))


def _arb(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))
