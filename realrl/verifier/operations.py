"""Computes the operations of formulas, by the names that nodes have."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from flint import acb, arb, fmpq, fmpq_mat, fmpz

from realrl.verifier.arithmetic import (
    Imprecise,
    NoValue,
    Pole,
    Scalar,
    add,
    ball,
    divide,
    logarithm,
    multiply,
    natural_logarithm,
    negated,
    root,
    square_root,
)

MAX_FACTORIAL = 2000
"""The largest whole number whose factorial is computed exactly."""
MAX_EXPONENT = 2048
"""The largest logarithm to base 2 of an argument: periodic functions need as many bits of it."""
MAX_UPPER = 5000
"""The largest upper number of a binomial coefficient that is computed exactly."""
MAX_LOWER = (1 << 64) - 1
"""The largest lower number of a binomial coefficient: FLINT takes no larger one."""
MAX_ROWS = 4
"""The largest number of rows of a determinant whose entries are not all rational."""
MAX_FACTORS = 60
"""The largest number of factors of a binomial coefficient whose upper number is not whole."""
_UNKNOWN_VALUES = 2_000_003
"""The number of values that an unknown function may have, a prime."""
_UNKNOWN_DENOMINATOR = 99_991
"""The denominator of these values, a prime, so that few of them are whole."""


def _by(name: str) -> Callable[[Scalar], Scalar]:
    """Return the rule that calls a method of a ball, for numbers that it can reduce in time."""

    def rule(value: Scalar) -> Scalar:
        found = ball(value)
        if found.abs_lower() > arb(2) ** MAX_EXPONENT:
            raise NoValue("a function of a large number")
        return getattr(found, name)()

    return rule


def _zero_at_zero(name: str) -> Callable[[Scalar], Scalar]:
    """Return the rule that calls a method of a ball, and is exact at 0."""
    plain = _by(name)

    def rule(value: Scalar) -> Scalar:
        if _is_exact_zero(value):
            return fmpq(0)
        return plain(value)

    return rule


def _of_inverse(function: Callable[[Scalar], Scalar]) -> Callable[[Scalar], Scalar]:
    """Return the rule that applies a function to the reciprocal of its argument."""

    def rule(value: Scalar) -> Scalar:
        reciprocal = divide(fmpq(1), value)
        return function(reciprocal)

    return rule


def _is_exact_zero(value: Scalar) -> bool:
    return isinstance(value, fmpq) and value == 0


def _arccot(value: Scalar) -> Scalar:
    """Return the inverse of the cotangent, between 0 and pi for real numbers."""
    return acb.pi() / 2 - ball(value).atan()


def _exponential(value: Scalar) -> Scalar:
    if _is_exact_zero(value):
        return fmpq(1)
    return ball(value).exp()


def _abs(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        return abs(value)
    return acb(abs(value))


def _real(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        return value
    return acb(value.real)


def _imaginary(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        return fmpq(0)
    return acb(value.imag)


def _conjugate(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        return value
    return value.conjugate()


def _argument(value: Scalar) -> Scalar:
    return acb(ball(value).arg())


def _cis(angle: Scalar) -> Scalar:
    return (ball(angle) * acb(0, 1)).exp()


def _degrees(value: Scalar) -> Scalar:
    return ball(value) * acb.pi() / 180


def _real_ball(value: Scalar) -> arb:
    """Return a value as a real ball.

    Raises:
        NoValue: The value may not be real.
    """
    if isinstance(value, fmpq):
        return arb(value)
    if not value.imag.is_zero():
        raise NoValue("no real number")
    return value.real


def _floor(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        return fmpq(value.floor())
    floor = _real_ball(value).floor()
    found = floor.unique_fmpz()
    if found is None:
        raise Imprecise("a floor of what may be whole")
    return fmpq(found)


def _ceiling(value: Scalar) -> Scalar:
    return -_floor(-value)


def order_of(left: Scalar, right: Scalar) -> int:
    """Return -1 if the left value certainly is smaller, 1 if it is larger, 0 if both are equal.

    Raises:
        Imprecise: The balls overlap.
        NoValue: A value may not be real.
    """
    if isinstance(left, fmpq) and isinstance(right, fmpq):
        return (left > right) - (left < right)
    first = _real_ball(left)
    second = _real_ball(right)
    if first < second:
        return -1
    if first > second:
        return 1
    raise Imprecise("an order of what may be equal")


def _sign(value: Scalar) -> Scalar:
    order = order_of(value, fmpq(0))
    return fmpq(order)


def _maximum(*values: Scalar) -> Scalar:
    best = values[0]
    for value in values[1:]:
        best = _larger(best, value)
    return best


def _minimum(*values: Scalar) -> Scalar:
    negatives = [-value for value in values]
    return -_maximum(*negatives)


def _larger(left: Scalar, right: Scalar) -> Scalar:
    try:
        order = order_of(left, right)
    except Imprecise:
        first = _real_ball(left)
        second = _real_ball(right)
        return acb(first.max(second))
    return left if order >= 0 else right


def scalar_as_int(value: Scalar) -> int:
    """Return an exact whole number as an int.

    Raises:
        NoValue: The value is anything else.
    """
    if not isinstance(value, fmpq) or value.q != 1:
        raise NoValue("no whole number")
    return int(value.p)


def _gcd(*values: Scalar) -> Scalar:
    found = fmpz(0)
    for value in values:
        number = scalar_as_int(value)
        found = found.gcd(fmpz(number))
    return fmpq(found)


def _lcm(*values: Scalar) -> Scalar:
    found = fmpz(1)
    for value in values:
        number = scalar_as_int(value)
        found = found.lcm(fmpz(number))
    return fmpq(found)


def _factorial(value: Scalar) -> Scalar:
    if isinstance(value, fmpq) and value.q == 1:
        if value < 0:
            raise Pole("a factorial of a negative number")
        if value <= MAX_FACTORIAL:
            return fmpq(fmpz.fac_ui(value.p))
    return (ball(value) + 1).gamma()


def _double_factorial(value: Scalar) -> Scalar:
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


def _binomial(top: Scalar, bottom: Scalar) -> Scalar:
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


def determinant(rows: Sequence[Sequence[Scalar]]) -> Scalar:
    """Return the determinant of a square matrix: by elimination if it is rational, else by expansion.

    Raises:
        NoValue: The matrix is not rational and has more than `MAX_ROWS` rows.
    """
    rational_rows = _rational_rows(rows)
    if rational_rows is not None:
        return fmpq_mat(rational_rows).det()
    if len(rows) > MAX_ROWS:
        raise NoValue("a large determinant of numbers that are not rational")
    if len(rows) == 1:
        return rows[0][0]
    total: Scalar = fmpq(0)
    for column, entry in enumerate(rows[0]):
        minor = [[*row[:column], *row[column + 1 :]] for row in rows[1:]]
        term = multiply(entry, determinant(minor))
        signed = term if column % 2 == 0 else -term
        total = add(total, signed)
    return total


def _rational_rows(rows: Sequence[Sequence[Scalar]]) -> list[list[int | fmpz | fmpq]] | None:
    """Return a matrix whose entries are all rational; None of any other."""
    found: list[list[int | fmpz | fmpq]] = []
    for row in rows:
        entries: list[int | fmpz | fmpq] = [entry for entry in row if isinstance(entry, fmpq)]
        if len(entries) < len(row):
            return None
        found.append(entries)
    return found


def unknown(name: str, arguments: Sequence[Scalar]) -> Scalar:
    """Return a value of an unknown function, which depends on its name and its arguments alone.

    Raises:
        NoValue: An argument is not rational.
    """
    if not all(isinstance(argument, fmpq) for argument in arguments):
        raise NoValue("a function without a meaning at a point that is not rational")
    shown = ",".join(map(str, arguments))
    text = f"{name}({shown})"
    digest = hashlib.sha256(text.encode()).digest()
    number = int.from_bytes(digest[:8], "big") % _UNKNOWN_VALUES
    return fmpq(number - _UNKNOWN_VALUES // 2, _UNKNOWN_DENOMINATOR)


RULES: dict[str, Callable[..., Scalar]] = {
    "add": add,
    "multiply": multiply,
    "divide": divide,
    "negative": negated,
    "sqrt": square_root,
    "cbrt": lambda value: root(value, fmpq(3)),
    "root": root,
    "ln": natural_logarithm,
    "log": logarithm,
    "lg": logarithm,
    "exp": _exponential,
    "abs": _abs,
    "real": _real,
    "imaginary": _imaginary,
    "conjugate": _conjugate,
    "arg": _argument,
    "cis": _cis,
    "degrees": _degrees,
    "floor": _floor,
    "ceiling": _ceiling,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "gcd": _gcd,
    "lcm": _lcm,
    "factorial": _factorial,
    "double_factorial": _double_factorial,
    "binomial": _binomial,
    "sin": _zero_at_zero("sin"),
    "cos": _by("cos"),
    "tan": _zero_at_zero("tan"),
    "cot": _by("cot"),
    "sec": _by("sec"),
    "csc": _by("csc"),
    "sinh": _zero_at_zero("sinh"),
    "cosh": _by("cosh"),
    "tanh": _zero_at_zero("tanh"),
    "coth": _by("coth"),
    "sech": _by("sech"),
    "csch": _by("csch"),
    "arcsin": _zero_at_zero("asin"),
    "arccos": _by("acos"),
    "arctan": _zero_at_zero("atan"),
    "arccot": _arccot,
    "arcsec": _of_inverse(_by("acos")),
    "arccsc": _of_inverse(_by("asin")),
    "arcsinh": _zero_at_zero("asinh"),
    "arccosh": _by("acosh"),
    "arctanh": _zero_at_zero("atanh"),
}
"""The rule of each operation, by its name."""
