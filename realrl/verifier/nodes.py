"""The tree of a formula as it is written, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias


@dataclass(frozen=True)
class Number:
    """A rational number, as it is written."""

    value: Fraction
    decimals: int = 0
    """Digits behind the point, zeros included."""


@dataclass(frozen=True)
class Symbol:
    r"""A variable, by its name: `x`, `x_{1}`, `\alpha`, `v_{max}`, `f'`."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A number with a name: `pi`, `e`, `i`, `infinity`."""

    name: str


@dataclass(frozen=True)
class Operation:
    """A function of the language applied to operands: `add`, `power`, `sin`, `floor`, `binomial`."""

    name: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Applied:
    """A function without a meaning applied to operands: `f(x)`, `g'(2)`."""

    name: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Repeated:
    """A sum or a product over the whole numbers from `low` to `high`, which may be infinite."""

    name: str
    """`sum` or `product`."""
    index: Symbol
    low: Node
    high: Node
    body: Node


@dataclass(frozen=True)
class Array:
    """Rows of a matrix or, with one row, a vector."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Condition:
    """An order between two formulas, in a case of a piecewise function."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Piecewise:
    """The value of the first case whose conditions all hold; a case without any is for all that is left."""

    cases: tuple[tuple[Node, tuple[Condition, ...]], ...]


Node: TypeAlias = "Number | Symbol | Constant | Operation | Applied | Repeated | Array | Piecewise"

INFINITY = Constant("infinity")


_OF_TWO = frozenset("divide power root binomial".split())
_OF_ANY_NUMBER = frozenset("add multiply maximum minimum gcd lcm".split())


def operation(name: str, *operands: Node) -> Operation:
    """The operation with this name, of as many operands as it takes."""
    assert _takes(name, len(operands)), f"{name} of {len(operands)} operands"
    return Operation(name, operands)


def _takes(name: str, num_operands: int) -> bool:
    """Whether an operation takes this number of operands."""
    if name in _OF_ANY_NUMBER:
        return num_operands > 0
    if name == "log":  # to the base 10, or with a base
        return num_operands in (1, 2)
    return num_operands == (2 if name in _OF_TWO else 1)


def whole(value: int) -> Number:
    return Number(Fraction(value))


def negative(node: Node) -> Node:
    """Minus a node; of a number, the number with the other sign."""
    if isinstance(node, Number):
        return Number(-node.value, node.decimals)
    return operation("negative", node)


def times(left: Node, right: Node) -> Operation:
    """The product of two factors; with a product on the left, of all its factors and the right one."""
    factors = left.operands if isinstance(left, Operation) and left.name == "multiply" else (left,)
    return Operation("multiply", (*factors, right))


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below a node."""
    match node:
        case Operation() | Applied():
            return node.operands
        case Repeated():
            return (node.low, node.high, node.body)
        case Array():
            return tuple(entry for row in node.rows for entry in row)
        case Piecewise():
            return tuple(_of_cases(node))
    return ()


def _of_cases(node: Piecewise) -> Iterator[Node]:
    for value, conditions in node.cases:
        yield value
        for condition in conditions:
            yield condition.left
            yield condition.right


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def free_symbols(node: Node) -> frozenset[str]:
    """The names of the variables that a value depends on."""
    if isinstance(node, Symbol):
        return frozenset((node.name,))
    found = frozenset[str]().union(*map(free_symbols, children(node)))
    if isinstance(node, Repeated):
        bounds = free_symbols(node.low) | free_symbols(node.high)
        return (found - {node.index.name}) | bounds
    return found


def substituted(node: Node, values: dict[str, Node]) -> Node:
    """The node with nodes in the place of some variables."""
    match node:
        case Symbol():
            return values.get(node.name, node)
        case Operation():
            return Operation(node.name, tuple(substituted(operand, values) for operand in node.operands))
        case Applied():
            return Applied(node.name, tuple(substituted(operand, values) for operand in node.operands))
        case Repeated():
            inner = {name: value for name, value in values.items() if name != node.index.name}
            return Repeated(
                node.name,
                node.index,
                substituted(node.low, values),
                substituted(node.high, values),
                substituted(node.body, inner),
            )
        case Array():
            return Array(tuple(tuple(substituted(e, values) for e in row) for row in node.rows))
        case Piecewise():
            return Piecewise(
                tuple(
                    (substituted(value, values), tuple(_substituted(c, values) for c in conditions))
                    for value, conditions in node.cases
                )
            )
    return node


def _substituted(condition: Condition, values: dict[str, Node]) -> Condition:
    return Condition(
        condition.operator, substituted(condition.left, values), substituted(condition.right, values)
    )
