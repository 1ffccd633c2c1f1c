"""Puts the exact numbers of one reading in the place of the decimals of another that stand for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from realrl.verifier.nodes import Array, Node
from realrl.verifier.rounding import stands_for
from realrl.verifier.tree import (
    Bound,
    Formula,
    Interval,
    Items,
    Named,
    Percentage,
    Quantity,
    Reading,
    RealSet,
    Value,
)

MAX_NUMBERS = 20
"""The largest number of exact numbers that are looked at: each is compared with each decimal."""


def with_exact_numbers(reading: Reading, exact: Reading, least_digits: int) -> Reading:
    """Return a reading whose decimals are numbers of `exact`, where they are those rounded or cut off.

    A decimal needs at least `least_digits` significant digits. The two readings are still to be compared: a
    number may be in another place.
    """
    numbers = list(dict.fromkeys(_numbers(exact)))
    return _Exchange(numbers[:MAX_NUMBERS], least_digits).of(reading)


def _numbers(reading: Reading) -> Iterator[Node]:
    """Yield the formulas that a reading is made of."""
    for value in reading:
        match value:
            case Formula(node) | Quantity(node, _) | Percentage(node):
                yield from _entries(node)
            case Items(items=items):
                for item in items:
                    yield from _numbers(item)
            case Named(value=inner):
                yield from _numbers(inner)
            case RealSet(parts):
                for part in parts:
                    yield from filter(None, (part.low.node, part.high.node))


def _entries(node: Node) -> Iterator[Node]:
    """Yield a formula, or the entries of an array."""
    if not isinstance(node, Array):
        yield node
        return
    for row in node.rows:
        yield from row


class _Exchange:
    """Replaces decimals by the exact numbers that they stand for."""

    def __init__(self, exact: list[Node], least_digits: int) -> None:
        self._exact = exact
        self._least_digits = least_digits

    def of(self, reading: Reading) -> Reading:
        return tuple(map(self._value, reading))

    def _value(self, value: Value) -> Value:
        match value:
            case Formula(node) | Quantity(node, _) | Percentage(node):
                return replace(value, node=self._node(node))
            case Items(items=items):
                return replace(value, items=tuple(map(self.of, items)))
            case Named(value=inner):
                return replace(value, value=self.of(inner))
            case RealSet(parts):
                return RealSet(tuple(map(self._interval, parts)))
        return value

    def _interval(self, part: Interval) -> Interval:
        return Interval(self._bound(part.low), self._bound(part.high))

    def _bound(self, bound: Bound) -> Bound:
        if bound.node is None:
            return bound
        return replace(bound, node=self._node(bound.node))

    def _node(self, node: Node) -> Node:
        if isinstance(node, Array):
            return replace(node, rows=tuple(tuple(map(self._node, row)) for row in node.rows))
        for number in self._exact:
            if stands_for(node, number, self._least_digits, of_decimals=True):
                return number
        return node
