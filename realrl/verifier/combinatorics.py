"""Computes functions of whole numbers: divisors, factorials and binomial coefficients."""

from __future__ import annotations

from flint import acb, fmpq, fmpz

from realrl.verifier.arithmetic import NoValue, Pole, Scalar, add, ball, divide, multiply

MAX_FACTORIAL = 2000
"""The largest whole number whose factorial is computed exactly."""
MAX_UPPER = 5000
"""The largest upper number of a binomial coefficient that is computed exactly."""
MAX_LOWER = (1 << 64) - 1
"""The largest lower number of a binomial coefficient: FLINT takes no larger one."""
MAX_FACTORS = 60
"""The largest number of factors of a binomial coefficient whose upper number is not whole."""


def scalar_as_int(value: Scalar) -> int:
    """Return an exact whole number as an int.

    Raises:
        NoValue: The value is anything else.
    """
    if not isinstance(value, fmpq) or value.q != 1:
        raise NoValue("no whole number")
    return int(value.p)


def gcd(*values: Scalar) -> Scalar:
    """Return the greatest common divisor of whole numbers."""
    found = fmpz(0)
    for value in values:
        number = scalar_as_int(value)
        found = found.gcd(fmpz(number))
    return fmpq(found)


def lcm(*values: Scalar) -> Scalar:
    """Return the least common multiple of whole numbers."""
    found = fmpz(1)
    for value in values:
        number = scalar_as_int(value)
        found = found.lcm(fmpz(number))
    return fmpq(found)


def factorial(value: Scalar) -> Scalar:
    """Return a factorial, which the gamma function defines for a number that is not whole.

    Raises:
        Pole: The number is whole and negative.
    """
    if isinstance(value, fmpq) and value.q == 1:
        if value < 0:
            raise Pole("a factorial of a negative number")
        if value <= MAX_FACTORIAL:
            return fmpq(fmpz.fac_ui(value.p))
    return (ball(value) + 1).gamma()


def double_factorial(value: Scalar) -> Scalar:
    """Return the product of a whole number and every second one below it."""
    number = scalar_as_int(value)
    if not -1 <= number <= MAX_FACTORIAL:
        raise NoValue("a double factorial")
    half = (number + 1) // 2
    power_of_two = fmpz(2) ** half
    if number % 2 == 0:
        half_factorial = fmpz.fac_ui(fmpz(half))
        return fmpq(power_of_two * half_factorial)
    # (2h - 1)!! = (2h)! / (2^h h!)
    half_factorial = fmpz.fac_ui(fmpz(half))
    whole_factorial = fmpz.fac_ui(fmpz(2 * half))
    return fmpq(whole_factorial, power_of_two * half_factorial)


def binomial(top: Scalar, bottom: Scalar) -> Scalar:
    """Return a binomial coefficient.

    It is a falling factorial over a factorial if the lower number is whole; else gamma functions define it.
    """
    if not isinstance(bottom, fmpq) or bottom.q != 1:
        return _binomial_by_gamma(ball(top), ball(bottom))
    count = int(bottom.p)
    if count < 0:
        return fmpq(0)
    if isinstance(top, fmpq) and top.q == 1 and 0 <= top <= MAX_UPPER:
        if count > MAX_LOWER:
            raise NoValue("a binomial coefficient with a large lower number")
        return fmpq(fmpz.bin_uiui(int(top.p), count))
    if count > MAX_FACTORS:
        return _binomial_by_gamma(ball(top), ball(bottom))
    product: Scalar = fmpq(1)
    for index in range(count):
        factor = add(top, fmpq(-index))
        product = divide(multiply(product, factor), fmpq(index + 1))
    return product


def _binomial_by_gamma(top: acb, bottom: acb) -> Scalar:
    above = (top + 1).gamma()
    # The reciprocal gamma function is 0 where the gamma function has a pole.
    below = (bottom + 1).rgamma()
    difference = (top - bottom + 1).rgamma()
    return above * below * difference
