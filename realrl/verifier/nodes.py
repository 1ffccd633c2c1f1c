"""The tree of a formula as it is written, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import TypeAlias


@dataclass(frozen=True)
class Number:
    """A rational number, as it is written."""

    value: Fraction
    decimals: int = 0
    """The number of digits after the point, with zeros at the end."""


@dataclass(frozen=True)
class Symbol:
    r"""A variable, by its name: `x`, `x_{1}`, `\alpha`, `v_{max}`, `f'`."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A constant with a name: `pi`, `e`, `i`, `infinity`."""

    name: str


@dataclass(frozen=True)
class Operation:
    """A known function applied to operands: `add`, `power`, `sin`, `floor`, `binomial`."""

    name: str
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Applied:
    """An unknown function applied to operands: `f(x)`, `g'(2)`."""

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
    """The value of the first case whose conditions all hold; a case without conditions always holds."""

    cases: tuple[Case, ...]


Case: TypeAlias = "tuple[Node, tuple[Condition, ...]]"
"""A value, and the conditions under which it holds."""
Node: TypeAlias = "Number | Symbol | Constant | Operation | Applied | Repeated | Array | Piecewise"

INFINITY = Constant("infinity")


_OF_TWO = frozenset("divide power root binomial".split())
_OF_ANY_NUMBER = frozenset("add multiply maximum minimum gcd lcm".split())


def operation(name: str, *operands: Node) -> Operation:
    """Return the operation with this name; it must take this number of operands."""
    assert _takes(name, len(operands)), f"{name} of {len(operands)} operands"
    return Operation(name, operands)


def _takes(name: str, num_operands: int) -> bool:
    """Return whether an operation takes this number of operands."""
    if name in _OF_ANY_NUMBER:
        return num_operands > 0
    if name == "log":
        # To the base 10, or with a base.
        return num_operands in (1, 2)
    wanted = 2 if name in _OF_TWO else 1
    return num_operands == wanted


def whole(value: int) -> Number:
    """Return a whole number as a node."""
    return Number(Fraction(value))


def negative(node: Node) -> Node:
    """Return the negative of a node; of a number, the number with the other sign."""
    if isinstance(node, Number):
        return Number(-node.value, node.decimals)
    return operation("negative", node)


def times(left: Node, right: Node) -> Operation:
    """Return the product of two factors; a product on the left gets one factor more."""
    is_product = isinstance(left, Operation) and left.name == "multiply"
    factors = children(left) if is_product else (left,)
    return Operation("multiply", (*factors, right))


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below a node."""
    match node:
        case Operation() | Applied():
            return node.operands
        case Repeated():
            return (node.low, node.high, node.body)
        case Array():
            return tuple(chain.from_iterable(node.rows))
        case Piecewise():
            return tuple(_nodes_of_cases(node))
    return ()


def _nodes_of_cases(node: Piecewise) -> Iterator[Node]:
    for value, conditions in node.cases:
        yield value
        for condition in conditions:
            yield condition.left
            yield condition.right


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all nodes below it."""
    yield node
    for child in children(node):
        yield from walk(child)


def free_symbols(node: Node) -> frozenset[str]:
    """Return the names of the variables that a value depends on."""
    if isinstance(node, Symbol):
        return frozenset((node.name,))
    if isinstance(node, Repeated):
        inside = free_symbols(node.body) - {node.index.name}
        bounds = free_symbols(node.low) | free_symbols(node.high)
        return inside | bounds
    names_below = map(free_symbols, children(node))
    return frozenset[str]().union(*names_below)


def substituted(node: Node, values: Mapping[str, Node]) -> Node:
    """Return a formula with other nodes for some of its variables."""
    match node:
        case Symbol():
            return values.get(node.name, node)
        case Operation():
            return Operation(node.name, _each_substituted(node.operands, values))
        case Applied():
            return Applied(node.name, _each_substituted(node.operands, values))
        case Repeated():
            low = substituted(node.low, values)
            high = substituted(node.high, values)
            # The index hides a variable of the same name.
            inner = dict(values)
            inner.pop(node.index.name, None)
            body = substituted(node.body, inner)
            return Repeated(node.name, node.index, low, high, body)
        case Array():
            rows = [_each_substituted(row, values) for row in node.rows]
            return Array(tuple(rows))
        case Piecewise():
            return _cases_substituted(node, values)
    return node


def _each_substituted(nodes: Iterable[Node], values: Mapping[str, Node]) -> tuple[Node, ...]:
    return tuple(substituted(node, values) for node in nodes)


def _cases_substituted(node: Piecewise, values: Mapping[str, Node]) -> Piecewise:
    cases: list[Case] = []
    for value, conditions in node.cases:
        new_value = substituted(value, values)
        new_conditions = [_condition_substituted(condition, values) for condition in conditions]
        cases.append((new_value, tuple(new_conditions)))
    return Piecewise(tuple(cases))


def _condition_substituted(condition: Condition, values: Mapping[str, Node]) -> Condition:
    left = substituted(condition.left, values)
    right = substituted(condition.right, values)
    return Condition(condition.operator, left, right)
