"""Numbers of any size, none of which takes long: exact while they are rational, with 80 digits beyond.

Every power and factorial is measured before it is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import mpmath

DIGITS = 80
AGREEING_DIGITS = 60
"""Of two values of one expression; rounding takes some of the rest."""
MAX_BITS = 1 << 17
"""Of a number that is computed exactly, and of the exponent of one that is not."""
MAX_FACTORIAL = 5000
MAX_ROOT = 1000

Number = Any
"""A `Fraction`, or a real or complex number of an mpmath context."""


class TooLarge(Exception):
    """A number that would take too long to compute."""


class Undefined(Exception):
    """No value."""


class Arithmetic:
    """Operations on `Number`s. Each raises TooLarge or Undefined where it has no result."""

    def __init__(self) -> None:
        self.context = mpmath.MPContext()
        self.context.dps = DIGITS

    def inexact(self, value: Number) -> Number:
        if isinstance(value, Fraction):
            return self.context.mpf(value.numerator) / value.denominator
        return value

    def rational(self, value: Number) -> Fraction:
        """What a real number is exactly."""
        if isinstance(value, Fraction):
            return value
        if not self.is_real(value) or not self.context.isfinite(value):
            raise Undefined("no real number")
        return Fraction(*map(int, mpmath.libmp.to_rational(self.context.re(value)._mpf_)))

    def same(self, a: Number, b: Number) -> bool:
        """Equal if both are exact, else to `AGREEING_DIGITS`."""
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a == b
        a, b = self.inexact(a), self.inexact(b)
        if not (self.context.isfinite(a) and self.context.isfinite(b)):
            return bool(a == b)
        scale = max(abs(a), abs(b))
        tiny = self.context.mpf(10) ** (-AGREEING_DIGITS)
        return bool(scale < tiny * tiny or abs(a - b) <= tiny * scale)

    def is_real(self, value: Number) -> bool:
        return isinstance(value, Fraction) or not self.context.im(value)

    def sum(self, terms: Sequence[Number]) -> Number:
        total: Number = Fraction(0)
        for term in terms:
            total, term = self._alike(total, term)
            total = total + term
        return total

    def product(self, factors: Sequence[Number]) -> Number:
        total: Number = Fraction(1)
        for factor in factors:
            total, factor = self._alike(total, factor)
            total = total * factor
            if isinstance(total, Fraction) and total.numerator.bit_length() > MAX_BITS:
                raise TooLarge
        return total

    def ratio(self, a: Number, b: Number) -> Number:
        if not b:
            raise Undefined("a division by 0")
        a, b = self._alike(a, b)
        return a / b

    def power(self, base: Number, exponent: Number) -> Number:
        """Odd roots of negative numbers are real, as in school."""
        if base == 0 and self.context.re(self.inexact(exponent)) <= 0:
            raise Undefined("a power of 0")
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self._whole_power(base, int(exponent))
        base, power = self.inexact(base), self.inexact(exponent)
        self._check_bits(power * self.context.log(base, 2) if base else 0)
        if self.is_real(base) and base < 0 and isinstance(exponent, Fraction):
            if exponent.denominator % 2 and exponent.denominator < MAX_ROOT:
                return (-1) ** (exponent.numerator % 2) * (-base) ** power
        return base**power

    def _whole_power(self, base: Number, exponent: int) -> Number:
        if not isinstance(base, Fraction):
            self._check_bits(exponent * self.context.log(abs(base), 2) if base else 0)
            return base**exponent
        if abs(base) in (0, 1):
            return base ** (exponent % 2) if base else base
        if max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent) > MAX_BITS:
            raise TooLarge
        return base**exponent

    def factorial(self, number: Number) -> Number:
        if abs(number) > MAX_FACTORIAL:
            raise TooLarge
        if isinstance(number, Fraction) and number.denominator == 1 and number >= 0:
            return Fraction(int(mpmath.libmp.ifac(int(number))))
        return self.context.factorial(self.inexact(number))

    def log(self, number: Number, base: Number | None = None) -> Number:
        if number == 0 or base in (0, 1):
            raise Undefined("a logarithm")
        natural = self.context.log(self.inexact(number))
        return natural if base is None else natural / self.context.log(self.inexact(base))

    def call(self, function: str, arguments: Sequence[Number]) -> Number:
        """A function of the context, of numbers that it can reduce in time."""
        numbers = [self.inexact(argument) for argument in arguments]
        if any(abs(number) > MAX_BITS for number in numbers):
            raise TooLarge
        return getattr(self.context, function)(*numbers)

    def _alike(self, a: Number, b: Number) -> tuple[Number, Number]:
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a, b
        return self.inexact(a), self.inexact(b)

    def _check_bits(self, bits: Number) -> None:
        if not self.context.isfinite(bits):
            raise Undefined("an infinite power")
        if abs(bits) > MAX_BITS:
            raise TooLarge
