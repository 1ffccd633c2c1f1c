"""Compares decimals with the exact numbers that they approximate."""

from __future__ import annotations

from fractions import Fraction

from flint import arb, ctx, fmpq

from realrl.verifier.arithmetic import NoValue, Scalar
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, Number, free_symbols

_PRECISION = 4096
"""Bits in which the exact number is evaluated."""


def stands_for(decimal: Node, exact: Node, least_digits: int, *, of_decimals: bool = False) -> bool:
    """Return whether `decimal` is `exact` rounded or truncated, with at least `least_digits` digits.

    With `of_decimals`, `exact` may itself be a decimal, of more digits.
    """
    if not isinstance(decimal, Number):
        return False
    if decimal.value.denominator == 1:
        return False
    if free_symbols(exact) or _significant_digits(decimal) < least_digits:
        return False
    is_decimal = isinstance(exact, Number) and exact.decimals > 0
    if is_decimal and not of_decimals:
        return False
    try:
        value = evaluated(exact, {}, _PRECISION)
    except NoValue:
        return False
    with ctx.workprec(_PRECISION):
        return _rounds_to(value, decimal)


def _significant_digits(number: Number) -> int:
    shifted = abs(number.value) * 10**number.decimals
    numerator, _, _ = str(shifted).partition("/")
    return len(numerator.lstrip("0"))


def _rounds_to(value: Scalar, shown: Number) -> bool:
    """Return whether a value that needs more decimals than are shown rounds or truncates to those shown."""
    if isinstance(value, fmpq):
        needs_no_more = (value * 10**shown.decimals).q == 1
        if needs_no_more:
            return False
        exact = arb(value)
    else:
        if not value.imag.is_zero():
            return False
        exact = value.real
    unit = Fraction(1, 10**shown.decimals)
    missing = abs(exact) - _arb(abs(shown.value))
    has_same_sign = bool(exact > 0) == (shown.value > 0)
    is_rounded_up_at_most = bool(missing >= _arb(-unit / 2))
    is_cut_off_at_most = bool(missing < _arb(unit))
    return has_same_sign and is_rounded_up_at_most and is_cut_off_at_most


def _arb(value: Fraction) -> arb:
    return arb(fmpq(value.numerator, value.denominator))
