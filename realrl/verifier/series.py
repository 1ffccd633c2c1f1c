"""Replaces infinite sums by their closed forms, where sympy knows one; sympy sees no other formula."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

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
"""The largest number of nodes of a term: sympy takes seconds over longer terms."""
MAX_NUMBER = 4
"""The largest number in a term: sympy takes seconds over higher powers."""


def summed(node: Node) -> Node:
    """Return a formula with the closed forms of its infinite sums, where they have one."""
    match node:
        case Operation(name, operands):
            return Operation(name, tuple(map(summed, operands)))
        case Repeated(name="sum", high=high) if high == INFINITY:
            return _closed_form(node) or node
    return node


def _closed_form(node: Repeated) -> Node | None:
    """Return the limit of a sum without variables; None if sympy knows none, or the sum diverges."""
    if not _is_small(node.body) or free_symbols(node):
        return None
    low = node.low
    if not isinstance(low, Number):
        return None
    if low.value.denominator != 1:
        return None
    # Importing sympy takes a second, and few answers need it.
    import sympy

    index = sympy.Symbol("n", integer=True)
    term = _to_sympy(node.body, node.index.name, index)
    if term is None:
        return None
    total = sympy.summation(term, (index, int(low.value), sympy.oo))
    if total.is_finite:
        return _from_sympy(total)
    return None


def _is_small(term: Node) -> bool:
    nodes = list(walk(term))
    if len(nodes) > MAX_NODES:
        return False
    numbers = [node.value for node in nodes if isinstance(node, Number)]
    return all(abs(number) <= MAX_NUMBER for number in numbers)


def _to_sympy(node: Node, name: str, index: sympy.Symbol) -> sympy.Expr | None:
    """Return a term as an expression of sympy, with `index` for the variable `name`; None if it has none."""
    import sympy

    match node:
        case Number(value=value):
            return sympy.Rational(value.numerator, value.denominator)
        case Symbol():
            if node.name == name:
                return index
            return None
        case Constant(name="pi"):
            return sympy.pi
        case Constant(name="e"):
            return sympy.E
        case Operation():
            operands = [_to_sympy(operand, name, index) for operand in node.operands]
            if None in operands or node.name not in _SYMPY:
                return None
            class_name, arranged = _SYMPY[node.name]
            return getattr(sympy, class_name)(*arranged(operands))
    return None


def _as_quotient(operands: list[Any]) -> list[Any]:
    top, bottom = operands
    return [top, bottom**-1]


def _as_negative(operands: list[Any]) -> list[Any]:
    return [-1, *operands]


_SYMPY: dict[str, tuple[str, Callable[[list[Any]], list[Any]]]] = {
    "add": ("Add", list),
    "multiply": ("Mul", list),
    "divide": ("Mul", _as_quotient),
    "negative": ("Mul", _as_negative),
    "power": ("Pow", list),
    "factorial": ("factorial", list),
}
"""For each operation the name of its class in sympy, and how that class takes the operands."""


def _from_sympy(expression: sympy.Basic) -> Node | None:
    """Return an expression of sympy as a formula; None if it has a function that is not known here."""
    import sympy

    if expression.is_Rational:
        return Number(Fraction(int(expression.p), int(expression.q)))
    if expression == sympy.pi:
        return Constant("pi")
    if expression == sympy.E:
        return Constant("e")
    names = {
        sympy.Add: "add",
        sympy.Mul: "multiply",
        sympy.Pow: "power",
        sympy.log: "ln",
        sympy.exp: "exp",
    }
    name = names.get(expression.func)
    if name is None:
        return None
    operands: list[Node] = []
    for argument in expression.args:
        operand = _from_sympy(argument)
        if operand is None:
            return None
        operands.append(operand)
    if operands:
        return operation(name, *operands)
    return None
