"""The value of a formula at a point: exact while it is rational, else a ball that certainly contains it."""

from __future__ import annotations

from collections.abc import Mapping

from flint import acb, arb, ctx, fmpq

from realrl.verifier.arithmetic import NoValue, Scalar, Unwieldy, add, checked, multiply, power
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
from realrl.verifier.operations import RULES, determinant, order_of, scalar_as_int, unknown

MAX_TERMS = 1000
"""The largest number of terms of a sum or a product over whole numbers."""
MAX_OPERATIONS = 10_000
"""The largest number of operations at one point with balls of up to 512 bits; it is smaller with larger ones.

A sum in a sum takes as many operations as the product of their numbers of terms.
"""

Point = Mapping[str, Scalar]


def evaluated(node: Node, point: Point, precision: int) -> Scalar:
    """The value of a formula where its variables have the values of `point`.

    `precision` is in bits, of balls.

    Raises:
        NoValue: there is none.
    """
    with ctx.workprec(precision):
        return _Evaluation(point, MAX_OPERATIONS * 512 // max(512, precision)).of(node)


class _Evaluation:
    """Evaluates one formula at one point, within a number of operations."""

    def __init__(self, point: Point, max_operations: int) -> None:
        self._point, self._left = dict(point), max_operations

    def of(self, node: Node) -> Scalar:
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
                return unknown(node.name, [self.of(operand) for operand in node.operands])
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
            result = power(*values, _written_denominator(node.operands[1]))
        else:
            result = RULES[node.name](*values) if node.name in RULES else _missing(node.name)
        return checked(result)

    def _determinant(self, array: Node) -> Scalar:
        if not isinstance(array, Array) or len(array.rows) != len(array.rows[0]) or len(array.rows) > 6:
            raise NoValue("no determinant")
        return determinant([[self.of(entry) for entry in row] for row in array.rows])

    def _repeated(self, node: Repeated) -> Scalar:
        low, high = scalar_as_int(self.of(node.low)), scalar_as_int(self.of(node.high))
        if high - low < -1:
            raise NoValue("bounds in the wrong order")
        if high - low >= MAX_TERMS:
            raise Unwieldy("too many terms")
        total: Scalar = fmpq(0 if node.name == "sum" else 1)
        before = self._point.get(node.index.name)
        for index in range(low, high + 1):
            self._point[node.index.name] = fmpq(index)
            term = self.of(node.body)
            total = checked(add(total, term) if node.name == "sum" else multiply(total, term))
        self._point.pop(node.index.name, None)
        if before is not None:
            self._point[node.index.name] = before
        return total

    def _piecewise(self, node: Piecewise) -> Scalar:
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


def _missing(name: str) -> Scalar:
    raise NoValue(name)


def _constant(name: str) -> Scalar:
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
