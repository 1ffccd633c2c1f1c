"""Evaluates a formula at a point: exactly while it is rational, else as a ball that contains the value."""

from __future__ import annotations

from collections.abc import Mapping

from flint import acb, arb, ctx, fmpq

from realrl.verifier.arithmetic import NoValue, Scalar, Unwieldy, add, checked, multiply, power
from realrl.verifier.combinatorics import scalar_as_int
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
from realrl.verifier.operations import RULES, determinant, order_of, unknown

MAX_TERMS = 1000
"""The largest number of terms of a sum or a product over whole numbers."""
MAX_DETERMINANT = 6
"""The largest number of rows of a determinant."""
MAX_OPERATIONS = 10_000
"""The largest number of operations at one point with balls of up to 512 bits; it is smaller with larger ones.

A sum in a sum takes as many operations as the product of their numbers of terms.
"""

Point = Mapping[str, Scalar]


def evaluated(node: Node, point: Point, precision: int) -> Scalar:
    """Return the value of a formula whose variables have the values of `point`.

    Units: `precision` is the number of bits of a ball.

    Raises:
        NoValue: The formula has no value there, or none that can be computed.
    """
    # Operations with long balls take longer, so there may be fewer of them.
    max_operations = MAX_OPERATIONS * 512 // max(512, precision)
    with ctx.workprec(precision):
        return _Evaluation(point, max_operations).of(node)


class _Evaluation:
    """Evaluates one formula at one point, within a number of operations."""

    def __init__(self, point: Point, max_operations: int) -> None:
        self._point = dict(point)
        self._left = max_operations

    def of(self, node: Node) -> Scalar:
        """Return the value of a formula, or of a part of it."""
        self._left -= 1
        if self._left < 0:
            raise Unwieldy("too many operations")
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
                values = [self.of(operand) for operand in node.operands]
                return unknown(node.name, values)
            case Repeated():
                return self._repeated(node)
            case Piecewise():
                return self._piecewise(node)
        raise NoValue("an array has no single value")

    def _variable(self, name: str) -> Scalar:
        if name not in self._point:
            raise NoValue(name)
        return self._point[name]

    def _operation(self, node: Operation) -> Scalar:
        if node.name == "determinant":
            return self._determinant(node.operands[0])
        values = [self.of(operand) for operand in node.operands]
        if node.name == "power":
            base, exponent = values
            denominator = _written_denominator(node.operands[1])
            return checked(power(base, exponent, denominator))
        if node.name not in RULES:
            raise NoValue(node.name)
        rule = RULES[node.name]
        return checked(rule(*values))

    def _determinant(self, array: Node) -> Scalar:
        if not isinstance(array, Array):
            raise NoValue("no determinant")
        size = len(array.rows)
        if size != len(array.rows[0]) or size > MAX_DETERMINANT:
            raise NoValue("no determinant")
        rows: list[list[Scalar]] = []
        for row in array.rows:
            values = [self.of(entry) for entry in row]
            rows.append(values)
        return determinant(rows)

    def _repeated(self, node: Repeated) -> Scalar:
        """Return a sum or a product over whole numbers; one over none is 0 or 1."""
        low = scalar_as_int(self.of(node.low))
        high = scalar_as_int(self.of(node.high))
        if high - low < -1:
            raise NoValue("bounds in the wrong order")
        if high - low >= MAX_TERMS:
            raise Unwieldy("too many terms")
        is_sum = node.name == "sum"
        combined = add if is_sum else multiply
        total: Scalar = fmpq(0) if is_sum else fmpq(1)
        name = node.index.name
        # The index hides a variable of the same name.
        hidden = self._point.get(name)
        for index in range(low, high + 1):
            self._point[name] = fmpq(index)
            term = self.of(node.body)
            total = checked(combined(total, term))
        self._point.pop(name, None)
        if hidden is not None:
            self._point[name] = hidden
        return total

    def _piecewise(self, node: Piecewise) -> Scalar:
        for value, conditions in node.cases:
            if all(self._holds(condition) for condition in conditions):
                return self.of(value)
        raise NoValue("no case holds")

    def _holds(self, condition: Condition) -> bool:
        left = self.of(condition.left)
        right = self.of(condition.right)
        order = order_of(left, right)
        return {
            "<": order < 0,
            "<=": order <= 0,
            ">": order > 0,
            ">=": order >= 0,
            "=": order == 0,
            "!=": order != 0,
        }[condition.operator]


def _constant(name: str) -> Scalar:
    if name == "pi":
        return acb.pi()
    if name == "e":
        return acb(arb.const_e())
    if name == "i":
        return acb(0, 1)
    raise NoValue(name)


def _written_denominator(exponent: Node) -> int | None:
    """Return the denominator, as written, of an exponent that is a fraction of whole numbers; else None."""
    match exponent:
        case Operation("negative", (inner,)):
            return _written_denominator(inner)
        case Operation("divide", (Number(value=top), Number(value=bottom))):
            is_fraction = top.denominator == bottom.denominator == 1
            return int(bottom) if is_fraction else None
        case Number(value=value):
            return value.denominator
    return None
