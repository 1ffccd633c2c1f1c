"""The value of a formula at a point: exact while it is rational, else a ball that certainly contains it.

Balls are those of FLINT (Johansson 2017, "Arb: efficient arbitrary-precision midpoint-radius interval
arithmetic"): every operation takes bounded time and memory, whatever its operands.

Conventions: an odd root of a negative number is real, as in school; every other power, root and logarithm has
its principal value. `\\log` is to the base 10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from flint import acb, arb, ctx, fmpq, fmpq_mat, fmpz

from realrl.verifier.nodes import (
    Applied,
    Array,
    Condition,
    Constant,
    Node,
    Number,
    Operation,
    Piecewise,
    Repeated,
    Symbol,
)

MAX_BITS = 1 << 15
"""Of a number that is kept exactly; a larger one is a ball."""
MAX_TERMS = 2000
"""Of a sum or a product over whole numbers."""
MAX_FACTORIAL = 2000
MAX_ROOT = 1000
MAX_OPERATIONS = 20_000
"""At one point: sums in sums multiply."""

Value = fmpq | acb
_TEN = fmpq(10)
Point = Mapping[str, Value]


class NoValue(Exception):
    """The formula has no value at the point, or none that a ball can tell."""


class Pole(NoValue):
    """A division by zero, or the like: there may be values all around the point."""


class Imprecise(NoValue):
    """A larger precision may tell the value."""


def evaluated(node: Node, point: Point, precision: int) -> Value:
    """The value of a formula where its variables have the values of `point`.

    `precision` is in bits, of balls.

    Raises:
        NoValue: there is none.
    """
    with ctx.workprec(precision):
        try:
            return _Evaluation(point).of(node)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError) as error:
            raise NoValue(str(error)) from None


def ball(value: Value) -> acb:
    return value if isinstance(value, acb) else acb(arb(value))


def is_real(value: Value) -> bool:
    return isinstance(value, fmpq) or value.imag.is_zero()


class _Evaluation:
    """One formula at one point."""

    def __init__(self, point: Point) -> None:
        self._point = dict(point)
        self._left = MAX_OPERATIONS

    def of(self, node: Node) -> Value:
        self._left -= 1
        if self._left < 0:
            raise NoValue("too many operations")
        match node:
            case Number():
                return fmpq(node.value.numerator, node.value.denominator)
            case Symbol():
                return self._variable(node.name)
            case Constant():
                return _constant(node.name)
            case Operation():
                return self._operation(node)
            case Applied():
                return _unknown(node.name, [self.of(operand) for operand in node.operands])
            case Repeated():
                return self._repeated(node)
            case Piecewise():
                return self._piecewise(node)
        raise NoValue("an array has no single value")

    def _variable(self, name: str) -> Value:
        if name not in self._point:
            raise NoValue(name)
        return self._point[name]

    def _operation(self, node: Operation) -> Value:
        if node.name == "determinant":
            return self._determinant(node.operands[0])
        values = [self.of(operand) for operand in node.operands]
        if node.name == "power":
            result = _power(*values, _written_denominator(node.operands[1]))
        else:
            result = _RULES[node.name](*values) if node.name in _RULES else _missing(node.name)
        return _checked(result)

    def _determinant(self, array: Node) -> Value:
        if not isinstance(array, Array) or len(array.rows) != len(array.rows[0]) or len(array.rows) > 6:
            raise NoValue("no determinant")
        return _determinant([[self.of(entry) for entry in row] for row in array.rows])

    def _repeated(self, node: Repeated) -> Value:
        low, high = _whole(self.of(node.low)), _whole(self.of(node.high))
        if not -1 <= high - low < MAX_TERMS:
            raise NoValue("too many terms, or bounds in the wrong order")
        total: Value = fmpq(0 if node.name == "sum" else 1)
        before = self._point.get(node.index.name)
        for index in range(low, high + 1):
            self._point[node.index.name] = fmpq(index)
            term = self.of(node.body)
            total = _checked(_sum(total, term) if node.name == "sum" else _product(total, term))
        self._point.pop(node.index.name, None)
        if before is not None:
            self._point[node.index.name] = before
        return total

    def _piecewise(self, node: Piecewise) -> Value:
        for value, conditions in node.cases:
            if all(self._holds(condition) for condition in conditions):
                return self.of(value)
        raise NoValue("no case holds")

    def _holds(self, condition: Condition) -> bool:
        order = order_of(self.of(condition.left), self.of(condition.right))
        return {
            "<": order < 0,
            "<=": order <= 0,
            ">": order > 0,
            ">=": order >= 0,
            "=": order == 0,
            "!=": order != 0,
        }[condition.operator]


def _checked(value: Value) -> Value:
    """A value that is finite, and exact only while it is small."""
    if isinstance(value, fmpq):
        return value if value.height_bits() <= MAX_BITS else acb(arb(value))
    if not value.is_finite():
        raise NoValue("not finite")
    return value


def _missing(name: str) -> Value:
    raise NoValue(name)


def _constant(name: str) -> Value:
    if name == "pi":
        return acb.pi()
    if name == "e":
        return acb(arb.const_e())
    if name == "i":
        return acb(0, 1)
    raise NoValue(name)


def _written_denominator(exponent: Node) -> int | None:
    """The denominator of an exponent that is written as a fraction of whole numbers, not reduced."""
    match exponent:
        case Operation("negative", (inner,)):
            return _written_denominator(inner)
        case Operation("divide", (Number(value=top), Number(value=bottom))):
            return int(bottom) if top.denominator == bottom.denominator == 1 else None
        case Number(value=value):
            return value.denominator
    return None


# Arithmetic.


def _sum(*terms: Value) -> Value:
    if all(isinstance(term, fmpq) for term in terms):
        return sum(terms, fmpq(0))
    return sum(map(ball, terms), acb(0))


def _product(*factors: Value) -> Value:
    total: Value = fmpq(1)
    for factor in factors:
        total = (
            total * factor
            if isinstance(total, fmpq) and isinstance(factor, fmpq)
            else ball(total) * ball(factor)
        )
        total = _checked(total)
    return total


def _quotient(top: Value, bottom: Value) -> Value:
    if isinstance(bottom, fmpq):
        if bottom == 0:
            raise Pole("a division by 0")
        return top / bottom if isinstance(top, fmpq) else top / ball(bottom)
    if bottom.contains(0):
        raise Imprecise("a division by what may be 0")
    return ball(top) / bottom


def _negative(value: Value) -> Value:
    return -value


def _power(base: Value, exponent: Value, written: int | None = None) -> Value:
    if isinstance(base, fmpq) and base == 0:
        return _power_of_zero(exponent)
    if isinstance(exponent, fmpq) and exponent.q == 1:
        return _whole_power(base, int(exponent.p))
    if isinstance(exponent, fmpq) and written and written % 2 and _is_negative(base):
        magnitude = _power(_negative(base), exponent)
        return _negative(magnitude) if int(exponent.p) % 2 else magnitude
    if isinstance(base, fmpq) and isinstance(exponent, fmpq) and base > 0:
        root = _exact_root(base, int(exponent.q))
        if root is not None:
            return _whole_power(root, int(exponent.p))
    if isinstance(base, acb) and base.contains(0):
        raise Imprecise("a power of what may be 0")
    return ball(base) ** ball(exponent)


def _power_of_zero(exponent: Value) -> Value:
    real = ball(exponent).real
    if real > 0:
        return fmpq(0)
    raise Pole("a power of 0")


def _whole_power(base: Value, exponent: int) -> Value:
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


def _is_negative(value: Value) -> bool:
    if isinstance(value, fmpq):
        return value < 0
    return value.imag.is_zero() and bool(value.real < 0)


def _sqrt(value: Value) -> Value:
    return _power(value, fmpq(1, 2))


def _root(value: Value, degree: Value) -> Value:
    if not isinstance(degree, fmpq) or degree.q != 1 or degree == 0 or abs(int(degree.p)) > MAX_ROOT:
        raise NoValue("a root without a whole degree")
    return _power(value, 1 / degree, abs(int(degree.p)))


def _natural_logarithm(value: Value) -> Value:
    if isinstance(value, fmpq):
        if value == 0:
            raise Pole("a logarithm of 0")
        if value == 1:
            return fmpq(0)
    elif value.contains(0):
        raise Imprecise("a logarithm of what may be 0")
    return ball(value).log()


def _logarithm(value: Value, base: Value = _TEN) -> Value:
    exact = _exact_logarithm(value, base)
    return _quotient(_natural_logarithm(value), _natural_logarithm(base)) if exact is None else exact


def _exact_logarithm(value: Value, base: Value) -> fmpq | None:
    """The rational logarithm of a rational number, if it has one with a small denominator."""
    if not (isinstance(value, fmpq) and isinstance(base, fmpq)) or value <= 0 or base <= 0 or base == 1:
        return None
    if max(value.height_bits(), base.height_bits()) > 512:
        return None
    ratio = arb(value).log() / arb(base).log()
    guess = Fraction(float(ratio.mid())).limit_denominator(12)
    if abs(guess.numerator) > 600:
        return None
    is_exact = base**guess.numerator == value**guess.denominator
    return fmpq(guess.numerator, guess.denominator) if is_exact else None


# Functions of real and complex numbers.


def _by(name: str) -> Callable[[Value], Value]:
    """A method of a ball; of 0 it is exact."""

    def rule(value: Value) -> Value:
        return getattr(ball(value), name)()

    return rule


def _zero_at_zero(name: str) -> Callable[[Value], Value]:
    plain = _by(name)
    return lambda value: fmpq(0) if isinstance(value, fmpq) and value == 0 else plain(value)


def _one_over(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    return lambda value: _quotient(fmpq(1), function(value))


def _of_inverse(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    return lambda value: function(_quotient(fmpq(1), value))


def _arccot(value: Value) -> Value:
    """Between 0 and pi for real numbers."""
    return acb.pi() / 2 - ball(value).atan()


def _exponential(value: Value) -> Value:
    return fmpq(1) if isinstance(value, fmpq) and value == 0 else ball(value).exp()


def _abs(value: Value) -> Value:
    return abs(value) if isinstance(value, fmpq) else acb(abs(value))


def _real(value: Value) -> Value:
    return value if isinstance(value, fmpq) else acb(value.real)


def _imaginary(value: Value) -> Value:
    return fmpq(0) if isinstance(value, fmpq) else acb(value.imag)


def _conjugate(value: Value) -> Value:
    return value if isinstance(value, fmpq) else value.conjugate()


def _argument(value: Value) -> Value:
    return ball(value).arg() if isinstance(value, acb) else acb(acb(arb(value)).arg())


def _cis(angle: Value) -> Value:
    return (ball(angle) * acb(0, 1)).exp()


def _degrees(value: Value) -> Value:
    return ball(value) * acb.pi() / 180


# Functions of real numbers.


def _real_ball(value: Value) -> arb:
    if isinstance(value, fmpq):
        return arb(value)
    if not value.imag.is_zero():
        raise NoValue("no real number")
    return value.real


def _floor(value: Value) -> Value:
    if isinstance(value, fmpq):
        return fmpq(value.floor())
    found = _real_ball(value).floor().unique_fmpz()
    if found is None:
        raise Imprecise("a floor of what may be whole")
    return fmpq(found)


def _ceiling(value: Value) -> Value:
    return -_floor(-value)


def order_of(left: Value, right: Value) -> int:
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


def _sign(value: Value) -> Value:
    return fmpq(order_of(value, fmpq(0)))


def _maximum(*values: Value) -> Value:
    best = values[0]
    for value in values[1:]:
        best = _larger(best, value)
    return best


def _minimum(*values: Value) -> Value:
    return -_maximum(*(-value for value in values))


def _larger(left: Value, right: Value) -> Value:
    try:
        return left if order_of(left, right) >= 0 else right
    except Imprecise:
        return acb(_real_ball(left).max(_real_ball(right)))


# Functions of whole numbers.


def _whole(value: Value) -> int:
    if not isinstance(value, fmpq) or value.q != 1:
        raise NoValue("no whole number")
    return int(value.p)


def _gcd(*values: Value) -> Value:
    found = fmpz(0)
    for value in values:
        found = found.gcd(fmpz(_whole(value)))
    return fmpq(found)


def _lcm(*values: Value) -> Value:
    found = fmpz(1)
    for value in values:
        found = found.lcm(fmpz(_whole(value)))
    return fmpq(found)


def _factorial(value: Value) -> Value:
    if isinstance(value, fmpq) and value.q == 1:
        if value < 0:
            raise Pole("a factorial of a negative number")
        if value <= MAX_FACTORIAL:
            return fmpq(fmpz.fac_ui(int(value.p)))
    return (ball(value) + 1).gamma()


def _double_factorial(value: Value) -> Value:
    number = _whole(value)
    if not -1 <= number <= MAX_FACTORIAL:
        raise NoValue("a double factorial")
    product = fmpz(1)
    for factor in range(number, 1, -2):
        product *= factor
    return fmpq(product)


def _binomial(top: Value, bottom: Value) -> Value:
    """With a whole lower number the falling factorial over a factorial, else by gamma functions."""
    if isinstance(bottom, fmpq) and bottom.q == 1:
        count = int(bottom.p)
        if count < 0:
            return fmpq(0)
        if isinstance(top, fmpq) and top.q == 1 and top >= 0:
            count = min(count, int(top.p) - count) if count <= top else count
        if count > MAX_FACTORIAL:
            raise NoValue("a large binomial coefficient")
        product: Value = fmpq(1)
        for index in range(count):
            product = _checked(_quotient(_product(product, _sum(top, fmpq(-index))), fmpq(index + 1)))
        return product
    top, bottom = ball(top), ball(bottom)
    return (top + 1).gamma() * (bottom + 1).rgamma() * (top - bottom + 1).rgamma()


def _determinant(rows: Sequence[Sequence[Value]]) -> Value:
    """By the first row; of numbers that are all rational by elimination."""
    if all(isinstance(entry, fmpq) for row in rows for entry in row):
        return fmpq_mat([list(row) for row in rows]).det()
    if len(rows) == 1:
        return rows[0][0]
    total: Value = fmpq(0)
    for column, entry in enumerate(rows[0]):
        minor = [[*row[:column], *row[column + 1 :]] for row in rows[1:]]
        term = _product(entry, _determinant(minor))
        total = _sum(total, term if column % 2 == 0 else -term)
    return total


def _unknown(name: str, arguments: Sequence[Value]) -> Value:
    """Of a function without a meaning: a number that depends on its name and its arguments alone."""
    if not all(isinstance(argument, fmpq) for argument in arguments):
        raise NoValue("a function without a meaning at a point that is not rational")
    text = f"{name}({','.join(map(str, arguments))})"
    digest = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    return fmpq(digest % 2_000_003 - 1_000_001, 99_991)


_TANGENT, _COTANGENT = _zero_at_zero("tan"), _by("cot")
_RULES: dict[str, Callable[..., Value]] = {
    "add": _sum,
    "multiply": _product,
    "divide": _quotient,
    "negative": _negative,
    "sqrt": _sqrt,
    "cbrt": lambda value: _root(value, fmpq(3)),
    "root": _root,
    "ln": _natural_logarithm,
    "log": _logarithm,
    "lg": _logarithm,
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
    "tan": _TANGENT,
    "cot": _COTANGENT,
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
"""By the names of operations."""
