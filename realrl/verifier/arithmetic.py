"""Numbers that are exact while they are rational and small, else balls that certainly contain them.

Balls are those of FLINT (Johansson 2017, "Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic"): every operation takes bounded time and memory, whatever its operands. Their precision is that of
`flint.ctx`.

Conventions: an odd root of a negative number is real, as in school; every other power, root and logarithm has
its principal value. `\\log` is to the base 10.
"""

from __future__ import annotations

from fractions import Fraction

from flint import acb, arb, fmpq, fmpz

MAX_BITS = 1 << 15
"""The largest size of a number that is kept exactly; a larger one becomes a ball."""
MAX_ROOT = 1000
Scalar = fmpq | acb
_TEN = fmpq(10)


class NoValue(Exception):
    """The formula has no value at the point, or none that a ball can tell."""


class Pole(NoValue):
    """A division by zero, or the like: there may be values all around the point."""


class Unwieldy(NoValue):
    """There may be a value, which takes too long to compute."""


class Imprecise(NoValue):
    """A larger precision may tell the value."""


def ball(value: Scalar) -> acb:
    return value if isinstance(value, acb) else acb(arb(value))


def is_real(value: Scalar) -> bool:
    return isinstance(value, fmpq) or value.imag.is_zero()


def checked(value: Scalar) -> Scalar:
    """A value that is finite, and exact only while it is small."""
    if isinstance(value, fmpq):
        return value if value.height_bits() <= MAX_BITS else acb(arb(value))
    if not value.is_finite():
        raise NoValue("not finite")
    return value


def add(*terms: Scalar) -> Scalar:
    if all(isinstance(term, fmpq) for term in terms):
        return sum(terms, fmpq(0))
    return sum(map(ball, terms), acb(0))


def multiply(*factors: Scalar) -> Scalar:
    total: Scalar = fmpq(1)
    for factor in factors:
        total = (
            total * factor
            if isinstance(total, fmpq) and isinstance(factor, fmpq)
            else ball(total) * ball(factor)
        )
        total = checked(total)
    return total


def divide(top: Scalar, bottom: Scalar) -> Scalar:
    if isinstance(bottom, fmpq):
        if bottom == 0:
            raise Pole("a division by 0")
        return top / bottom if isinstance(top, fmpq) else top / ball(bottom)
    if bottom.contains(0):
        raise Imprecise("a division by what may be 0")
    return ball(top) / bottom


def negated(value: Scalar) -> Scalar:
    return -value


def power(base: Scalar, exponent: Scalar, written: int | None = None) -> Scalar:
    if isinstance(base, fmpq) and base == 0:
        return _power_of_zero(exponent)
    if isinstance(exponent, fmpq) and exponent.q == 1:
        return _whole_power(base, int(exponent.p))
    if isinstance(exponent, fmpq) and written and written % 2 and _is_negative(base):
        magnitude = power(negated(base), exponent)
        return negated(magnitude) if int(exponent.p) % 2 else magnitude
    if isinstance(base, fmpq) and isinstance(exponent, fmpq) and base > 0:
        root = _exact_root(base, int(exponent.q))
        if root is not None:
            return _whole_power(root, int(exponent.p))
    if isinstance(base, acb) and base.contains(0):
        raise Imprecise("a power of what may be 0")
    return ball(base) ** ball(exponent)


def _power_of_zero(exponent: Scalar) -> Scalar:
    real = ball(exponent).real
    if real > 0:
        return fmpq(0)
    raise Pole("a power of 0")


def _whole_power(base: Scalar, exponent: int) -> Scalar:
    if isinstance(base, fmpq):
        if base in (1, -1):
            return base if exponent % 2 else fmpq(1)
        if base.height_bits() * abs(exponent) <= MAX_BITS:
            return base**exponent
        base = acb(arb(base))
    return base ** fmpz(exponent)


def _exact_root(value: fmpq, degree: int) -> fmpq | None:
    """The rational root of a positive number, if it has one."""
    if not 1 < degree <= MAX_ROOT:
        return None
    top, bottom = value.p.root(degree), value.q.root(degree)
    return fmpq(top, bottom) if top**degree == value.p and bottom**degree == value.q else None


def _is_negative(value: Scalar) -> bool:
    if isinstance(value, fmpq):
        return value < 0
    return value.imag.is_zero() and bool(value.real < 0)


def square_root(value: Scalar) -> Scalar:
    return power(value, fmpq(1, 2))


def root(value: Scalar, degree: Scalar) -> Scalar:
    if not isinstance(degree, fmpq) or degree.q != 1 or degree == 0 or abs(int(degree.p)) > MAX_ROOT:
        raise NoValue("a root without a whole degree")
    return power(value, 1 / degree, abs(int(degree.p)))


def natural_logarithm(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        if value == 0:
            raise Pole("a logarithm of 0")
        if value == 1:
            return fmpq(0)
    elif value.contains(0):
        raise Imprecise("a logarithm of what may be 0")
    return ball(value).log()


def logarithm(value: Scalar, base: Scalar = _TEN) -> Scalar:
    if not _is_positive(base):
        raise Pole("a logarithm to a base that is not positive")
    exact = _exact_logarithm(value, base)
    return divide(natural_logarithm(value), natural_logarithm(base)) if exact is None else exact


def _is_positive(value: Scalar) -> bool:
    return bool(value > 0) if isinstance(value, fmpq) else value.imag.is_zero() and bool(value.real > 0)


def _exact_logarithm(value: Scalar, base: Scalar) -> fmpq | None:
    """The rational logarithm of a rational number, if it has one with a small denominator."""
    if not (isinstance(value, fmpq) and isinstance(base, fmpq)) or value <= 0 or base <= 0 or base == 1:
        return None
    if max(value.height_bits(), base.height_bits()) > 512:
        return None
    ratio = arb(value).log() / arb(base).log()
    if not ratio.is_finite():
        raise NoValue("a logarithm to a base that may be 1")
    guess = Fraction(float(ratio.mid())).limit_denominator(12)
    if abs(guess.numerator) > 600:
        return None
    is_exact = base**guess.numerator == value**guess.denominator
    return fmpq(guess.numerator, guess.denominator) if is_exact else None
