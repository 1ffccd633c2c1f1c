"""Arithmetic with numbers that are exact while they are rational and small, else balls that contain them.

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
"""The largest degree of a root."""
MAX_LOGARITHM_BITS = 512
"""The largest size of numbers whose exact logarithm is tried."""
MAX_EXPONENT = 600
"""The largest numerator of an exact logarithm."""
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
    """Return a value as a ball."""
    if isinstance(value, acb):
        return value
    return acb(arb(value))


def is_real(value: Scalar) -> bool:
    """Return whether a value certainly is real."""
    return isinstance(value, fmpq) or value.imag.is_zero()


def checked(value: Scalar) -> Scalar:
    """Return a value, as a ball if it is too large to be kept exactly.

    Raises:
        NoValue: The value is not finite.
    """
    if isinstance(value, fmpq):
        is_small = value.height_bits() <= MAX_BITS
        if is_small:
            return value
        return acb(arb(value))
    if not value.is_finite():
        raise NoValue("not finite")
    return value


def add(*terms: Scalar) -> Scalar:
    """Return a sum, exact if all terms are."""
    if all(isinstance(term, fmpq) for term in terms):
        return sum(terms, fmpq(0))
    return sum(map(ball, terms), acb(0))


def multiply(*factors: Scalar) -> Scalar:
    """Return a product, exact while the factors are and it is small.

    Raises:
        NoValue: The product is not finite.
    """
    total: Scalar = fmpq(1)
    for factor in factors:
        if isinstance(total, fmpq) and isinstance(factor, fmpq):
            total = total * factor
        else:
            total = ball(total) * ball(factor)
        total = checked(total)
    return total


def divide(top: Scalar, bottom: Scalar) -> Scalar:
    """Return a quotient.

    Raises:
        Pole: The bottom is 0.
        Imprecise: The bottom may be 0.
    """
    if isinstance(bottom, fmpq):
        if bottom == 0:
            raise Pole("a division by 0")
        if isinstance(top, fmpq):
            return top / bottom
        return top / ball(bottom)
    if bottom.contains(0):
        raise Imprecise("a division by what may be 0")
    return ball(top) / bottom


def negated(value: Scalar) -> Scalar:
    """Return the negative of a value."""
    return -value


def power(base: Scalar, exponent: Scalar, written: int | None = None) -> Scalar:
    """Return a power; one of a negative base is real if `written`, the exponent's denominator, is odd.

    Raises:
        Pole: The base is 0 and the exponent is not positive.
        Imprecise: The base may be 0.
    """
    if isinstance(base, fmpq) and base == 0:
        return _power_of_zero(exponent)
    if isinstance(exponent, fmpq) and exponent.q == 1:
        return _whole_power(base, int(exponent.p))
    if isinstance(exponent, fmpq) and written and written % 2 and _is_negative(base):
        magnitude = power(negated(base), exponent)
        if int(exponent.p) % 2:
            return negated(magnitude)
        return magnitude
    exact = _exact_power(base, exponent)
    if exact is not None:
        return exact
    if isinstance(base, acb) and base.contains(0):
        raise Imprecise("a power of what may be 0")
    return ball(base) ** ball(exponent)


def _exact_power(base: Scalar, exponent: Scalar) -> Scalar | None:
    """Return a rational power of a positive rational number whose root is rational; else None."""
    if not (isinstance(base, fmpq) and isinstance(exponent, fmpq)):
        return None
    if base <= 0:
        return None
    root = _exact_root(base, int(exponent.q))
    if root is None:
        return None
    return _whole_power(root, int(exponent.p))


def _power_of_zero(exponent: Scalar) -> Scalar:
    real = ball(exponent).real
    if real > 0:
        return fmpq(0)
    raise Pole("a power of 0")


def _whole_power(base: Scalar, exponent: int) -> Scalar:
    if isinstance(base, fmpq):
        if base in (1, -1):
            if exponent % 2:
                return base
            return fmpq(1)
        if base.height_bits() * abs(exponent) <= MAX_BITS:
            return base**exponent
        base = acb(arb(base))
    return base ** fmpz(exponent)


def _exact_root(value: fmpq, degree: int) -> fmpq | None:
    """Return the rational root of a positive number; None if it has none."""
    if not 1 < degree <= MAX_ROOT:
        return None
    top = value.p.root(degree)
    bottom = value.q.root(degree)
    is_exact = top**degree == value.p and bottom**degree == value.q
    if is_exact:
        return fmpq(top, bottom)
    return None


def _is_negative(value: Scalar) -> bool:
    if isinstance(value, fmpq):
        return value < 0
    if not value.imag.is_zero():
        return False
    return bool(value.real < 0)


def square_root(value: Scalar) -> Scalar:
    """Return the principal square root."""
    return power(value, fmpq(1, 2))


def root(value: Scalar, degree: Scalar) -> Scalar:
    """Return a root; an odd one of a negative number is real.

    Raises:
        NoValue: The degree is not a whole number, is 0, or is above `MAX_ROOT`.
    """
    if not isinstance(degree, fmpq) or degree.q != 1 or degree == 0:
        raise NoValue("a root without a whole degree")
    denominator = abs(int(degree.p))
    if denominator > MAX_ROOT:
        raise NoValue("a root without a whole degree")
    return power(value, 1 / degree, denominator)


def natural_logarithm(value: Scalar) -> Scalar:
    """Return the principal value of the natural logarithm.

    Raises:
        Pole: The value is 0.
        Imprecise: The value may be 0.
    """
    if isinstance(value, fmpq):
        if value == 0:
            raise Pole("a logarithm of 0")
        if value == 1:
            return fmpq(0)
    elif value.contains(0):
        raise Imprecise("a logarithm of what may be 0")
    return ball(value).log()


def logarithm(value: Scalar, base: Scalar = _TEN) -> Scalar:
    """Return the logarithm of a value to a base, exact where it is rational with a small denominator.

    Raises:
        Pole: The base is not positive, or the value is 0.
        Imprecise: The value, or the logarithm of the base, may be 0.
    """
    if not _is_positive(base):
        raise Pole("a logarithm to a base that is not positive")
    exact = _exact_logarithm(value, base)
    if exact is not None:
        return exact
    return divide(natural_logarithm(value), natural_logarithm(base))


def _is_positive(value: Scalar) -> bool:
    if isinstance(value, fmpq):
        return bool(value > 0)
    if not value.imag.is_zero():
        return False
    return bool(value.real > 0)


def _exact_logarithm(value: Scalar, base: Scalar) -> fmpq | None:
    """Return the rational logarithm of a rational number; None without one of a small denominator."""
    if not (isinstance(value, fmpq) and isinstance(base, fmpq)):
        return None
    if value <= 0 or base <= 0 or base == 1:
        return None
    if max(value.height_bits(), base.height_bits()) > MAX_LOGARITHM_BITS:
        return None
    ratio = arb(value).log() / arb(base).log()
    if not ratio.is_finite():
        raise NoValue("a logarithm to a base that may be 1")
    # A guess in floating point is enough, as it is checked exactly.
    guess = Fraction(float(ratio.mid())).limit_denominator(12)
    if abs(guess.numerator) > MAX_EXPONENT:
        return None
    is_exact = base**guess.numerator == value**guess.denominator
    if is_exact:
        return fmpq(guess.numerator, guess.denominator)
    return None
