"""Infinite sums in closed form, where sympy knows one; no other formula is put to it."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from realrl.verifier.nodes import (
    INFINITY,
    Constant,
    Node,
    Number,
    Operation,
    Repeated,
    Symbol,
    free_symbols,
    operation,
    walk,
)

if TYPE_CHECKING:
    import sympy

MAX_NODES = 16
MAX_NUMBER = 4
"""The largest number in a term: sympy takes seconds over higher powers, and over longer terms."""


def summed(node: Node) -> Node:
    """A formula with the closed forms of its infinite sums, where they have one."""
    match node:
        case Operation(name, operands):
            return Operation(name, tuple(map(summed, operands)))
        case Repeated(name="sum", high=high) if high == INFINITY:
            return _closed_form(node) or node
    return node


def _closed_form(node: Repeated) -> Node | None:
    """The limit of a sum without variables; None where sympy knows none, or the sum diverges."""
    if (
        not _is_small(node.body)
        or free_symbols(node)
        or not isinstance(node.low, Number)
        or node.low.value.denominator != 1
    ):
        return None
    import sympy

    index = sympy.Symbol("n", integer=True)
    term = _to_sympy(node.body, node.index.name, index)
    if term is None:
        return None
    total = sympy.summation(term, (index, int(node.low.value), sympy.oo))
    return _from_sympy(total) if total.is_finite else None


def _is_small(term: Node) -> bool:
    nodes = list(walk(term))
    numbers = [node.value for node in nodes if isinstance(node, Number)]
    return len(nodes) <= MAX_NODES and all(abs(number) <= MAX_NUMBER for number in numbers)


def _to_sympy(node: Node, name: str, index: sympy.Symbol) -> sympy.Expr | None:
    import sympy

    match node:
        case Number(value=value):
            return sympy.Rational(value.numerator, value.denominator)
        case Symbol():
            return index if node.name == name else None
        case Constant(name="pi"):
            return sympy.pi
        case Constant(name="e"):
            return sympy.E
        case Operation():
            operands = [_to_sympy(operand, name, index) for operand in node.operands]
            if None not in operands and node.name in _SYMPY:
                return getattr(sympy, _SYMPY[node.name][0])(*_SYMPY[node.name][1](operands))
    return None


def _as_quotient(operands: list) -> list:
    return [operands[0], operands[1] ** -1]


_SYMPY = {
    "add": ("Add", list),
    "multiply": ("Mul", list),
    "divide": ("Mul", _as_quotient),
    "negative": ("Mul", lambda operands: [-1, *operands]),
    "power": ("Pow", list),
    "factorial": ("factorial", list),
}
"""For each operation the name of its class in sympy, and how that class takes the operands."""


def _from_sympy(expression: sympy.Basic) -> Node | None:
    import sympy

    if expression.is_Rational:
        return Number(Fraction(int(expression.p), int(expression.q)))
    if expression in (sympy.pi, sympy.E):
        return Constant("pi" if expression == sympy.pi else "e")
    operands = [_from_sympy(argument) for argument in expression.args]
    names = {sympy.Add: "add", sympy.Mul: "multiply", sympy.Pow: "power", sympy.log: "ln", sympy.exp: "exp"}
    name = names.get(expression.func)
    if name is None or not operands or None in operands:
        return None
    return operation(name, *operands)
