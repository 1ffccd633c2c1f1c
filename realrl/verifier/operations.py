"""The operations of formulas as functions of numbers, by the names that nodes have."""

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


def _by(name: str) -> Callable[[Scalar], Scalar]:
    """The rule that calls a method of a ball, for numbers that it can reduce in time."""

    def rule(value: Scalar) -> Scalar:
        found = ball(value)
        if found.abs_lower() > arb(2) ** MAX_EXPONENT:
            raise NoValue("a function of a large number")
        return getattr(found, name)()

    return rule


def _zero_at_zero(name: str) -> Callable[[Scalar], Scalar]:
    plain = _by(name)
    return lambda value: fmpq(0) if isinstance(value, fmpq) and value == 0 else plain(value)


def _of_inverse(function: Callable[[Scalar], Scalar]) -> Callable[[Scalar], Scalar]:
    return lambda value: function(divide(fmpq(1), value))


def _arccot(value: Scalar) -> Scalar:
    """The inverse of the cotangent, between 0 and pi for real numbers."""
    return acb.pi() / 2 - ball(value).atan()


def _exponential(value: Scalar) -> Scalar:
    return fmpq(1) if isinstance(value, fmpq) and value == 0 else ball(value).exp()


def _abs(value: Scalar) -> Scalar:
    return abs(value) if isinstance(value, fmpq) else acb(abs(value))


def _real(value: Scalar) -> Scalar:
    return value if isinstance(value, fmpq) else acb(value.real)


def _imaginary(value: Scalar) -> Scalar:
    return fmpq(0) if isinstance(value, fmpq) else acb(value.imag)


def _conjugate(value: Scalar) -> Scalar:
    return value if isinstance(value, fmpq) else value.conjugate()


def _argument(value: Scalar) -> Scalar:
    return ball(value).arg() if isinstance(value, acb) else acb(acb(arb(value)).arg())


def _cis(angle: Scalar) -> Scalar:
    return (ball(angle) * acb(0, 1)).exp()


def _degrees(value: Scalar) -> Scalar:
    return ball(value) * acb.pi() / 180


def _real_ball(value: Scalar) -> arb:
    if isinstance(value, fmpq):
        return arb(value)
    if not value.imag.is_zero():
        raise NoValue("no real number")
    return value.real


def _floor(value: Scalar) -> Scalar:
    if isinstance(value, fmpq):
        return fmpq(value.floor())
    found = _real_ball(value).floor().unique_fmpz()
    if found is None:
        raise Imprecise("a floor of what may be whole")
    return fmpq(found)


def _ceiling(value: Scalar) -> Scalar:
    return -_floor(-value)


def order_of(left: Scalar, right: Scalar) -> int:
    """-1, 0 or 1, certainly.

    Raises:
        Imprecise: the balls overlap.
    """
    if isinstance(left, fmpq) and isinstance(right, fmpq):
        return (left > right) - (left < right)
    left, right = _real_ball(left), _real_ball(right)
    if left < right:
        return -1
    if left > right:
        return 1
    raise Imprecise("an order of what may be equal")


def _sign(value: Scalar) -> Scalar:
    return fmpq(order_of(value, fmpq(0)))


def _maximum(*values: Scalar) -> Scalar:
    best = values[0]
    for value in values[1:]:
        best = _larger(best, value)
    return best


def _minimum(*values: Scalar) -> Scalar:
    return -_maximum(*(-value for value in values))


def _larger(left: Scalar, right: Scalar) -> Scalar:
    try:
        return left if order_of(left, right) >= 0 else right
    except Imprecise:
        return acb(_real_ball(left).max(_real_ball(right)))


def scalar_as_int(value: Scalar) -> int:
    if not isinstance(value, fmpq) or value.q != 1:
        raise NoValue("no whole number")
    return int(value.p)


def _gcd(*values: Scalar) -> Scalar:
    found = fmpz(0)
    for value in values:
        found = found.gcd(fmpz(scalar_as_int(value)))
    return fmpq(found)


def _lcm(*values: Scalar) -> Scalar:
    found = fmpz(1)
    for value in values:
        found = found.lcm(fmpz(scalar_as_int(value)))
    return fmpq(found)


def _factorial(value: Scalar) -> Scalar:
    if isinstance(value, fmpq) and value.q == 1:
        if value < 0:
            raise Pole("a factorial of a negative number")
        if value <= MAX_FACTORIAL:
            return fmpq(fmpz.fac_ui(int(value.p)))
    return (ball(value) + 1).gamma()


def _double_factorial(value: Scalar) -> Scalar:
    number = scalar_as_int(value)
    if not -1 <= number <= MAX_FACTORIAL:
        raise NoValue("a double factorial")
    half = (number + 1) // 2
    if number % 2 == 0:
        return fmpq(fmpz(2) ** half * fmpz.fac_ui(half))
    return fmpq(fmpz.fac_ui(2 * half), fmpz(2) ** half * fmpz.fac_ui(half))


def _binomial(top: Scalar, bottom: Scalar) -> Scalar:
    """The falling factorial over a factorial where the lower number is whole; else gamma functions."""
    if not (isinstance(bottom, fmpq) and bottom.q == 1):
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
        product = divide(multiply(product, add(top, fmpq(-index))), fmpq(index + 1))
    return product


def _binomial_by_gamma(top: acb, bottom: acb) -> Scalar:
    return (top + 1).gamma() * (bottom + 1).rgamma() * (top - bottom + 1).rgamma()


def determinant(rows: Sequence[Sequence[Scalar]]) -> Scalar:
    """The determinant of a square matrix: by elimination if all entries are rational, else by expansion."""
    if all(isinstance(entry, fmpq) for row in rows for entry in row):
        return fmpq_mat([list(row) for row in rows]).det()
    if len(rows) > MAX_ROWS:
        raise NoValue("a large determinant of numbers that are not rational")
    if len(rows) == 1:
        return rows[0][0]
    total: Scalar = fmpq(0)
    for column, entry in enumerate(rows[0]):
        minor = [[*row[:column], *row[column + 1 :]] for row in rows[1:]]
        term = multiply(entry, determinant(minor))
        total = add(total, term if column % 2 == 0 else -term)
    return total


def unknown(name: str, arguments: Sequence[Scalar]) -> Scalar:
    """A value for a function without a meaning, which depends on its name and its arguments alone."""
    if not all(isinstance(argument, fmpq) for argument in arguments):
        raise NoValue("a function without a meaning at a point that is not rational")
    text = f"{name}({','.join(map(str, arguments))})"
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return fmpq(digest % 2_000_003 - 1_000_001, 99_991)


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
