r"""Reads orders of one variable as sets of real numbers.

-x > -1 ─▶ x < 1 ─▶ (-∞, 1)      1 < x <= 2 ─▶ (1, 2]      |x - 1| <= 2 ─▶ [-1, 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from realrl.verifier import sets
from realrl.verifier.grammar import readings
from realrl.verifier.names import Name, is_variable, name_of
from realrl.verifier.nodes import Node, Number, Operation, free_symbols, negative, operation
from realrl.verifier.readers.common import Read, only_formula, read_each
from realrl.verifier.readers.real_sets import high_end, infinity_sign, low_end
from realrl.verifier.tokens import CLOSE, OPEN, SIGN, Token, Tokens
from realrl.verifier.tree import Named, Reading, RealSet, Relation

ORDERS = ("<", ">", "<=", ">=")
_RISING = ("<", "<=")
_FALLING = (">", ">=")
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_MINUS = Token(SIGN, "-")


class _Solution(NamedTuple):
    """The values of a variable for which an order holds."""

    name: Name
    inside: RealSet


def ray(operator: str, node: Node) -> RealSet:
    """Return the numbers that are in an order to a bound: for `<`, those below `node`."""
    is_closed = operator in ("<=", ">=")
    if operator in _RISING:
        return sets.bounded(None, node, closed=(False, is_closed))
    return sets.bounded(node, None, closed=(is_closed, False))


def read_order(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    """Return the set of an order of one variable; an order of several is a relation, too."""
    if all(operator in _FALLING for operator in operators):
        sides = sides[::-1]
        operators = [_TURNED[operator] for operator in reversed(operators)]
    found = _bounds(sides, operators, read)
    if found is None:
        found = _distance(sides, operators, read)
    if found is None:
        return _as_relation(sides, operators, read)
    name, inside = found
    said = Named(name.text, (inside,), name.may_be_dropped)
    if _has_variable_bound(inside):
        return (said, *_as_relation(sides, operators, read))
    return (said,)


def _as_relation(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> Reading:
    read_sides = read_each(sides, read)
    return (Relation(tuple(operators), read_sides),)


def _has_variable_bound(found: RealSet) -> bool:
    """Return whether a bound of a set has a variable: `y < 2x` is an order of both variables."""
    for part in found.parts:
        for node in (part.low.node, part.high.node):
            if node is not None and free_symbols(node):
                return True
    return False


def _bounds(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> _Solution | None:
    """Return the interval of a name between bounds, as `1 < x < 2` and `x < 2`."""
    are_rising = all(operator in _RISING for operator in operators)
    if not are_rising or len(sides) > 3:
        return None
    sides, operators = _turned_sign(sides, operators)
    names = list(map(name_of, sides))
    has_low = len(sides) == 3 or names[0] is None
    place = 1 if has_low else 0
    has_high = place + 1 < len(sides)
    name = names[place]
    if name is None:
        return None
    has_other_names = names.count(None) < len(names) - 1
    if has_other_names and not is_variable(name.text):
        return None
    low = only_formula(sides[place - 1], read) if has_low else None
    high = only_formula(sides[place + 1], read) if has_high else None
    if has_low and low is None:
        return None
    if has_high and high is None:
        return None
    if name.text.startswith("|"):
        return None
    inside = _between(low, high, operators)
    return _Solution(name, inside)


def _between(low: Node | None, high: Node | None, operators: Sequence[str]) -> RealSet:
    """Return the interval between bounds, of which None is no bound; an end at infinity is open."""
    lowest: Node | None = None
    highest: Node | None = None
    has_lowest = False
    has_highest = False
    if low is not None:
        lowest = low_end(low)
        has_lowest = operators[0] == "<=" and not infinity_sign(low)
    if high is not None:
        highest = high_end(high)
        has_highest = operators[-1] == "<=" and not infinity_sign(high)
    return sets.bounded(lowest, highest, closed=(has_lowest, has_highest))


def _turned_sign(sides: Sequence[Tokens], operators: Sequence[str]) -> tuple[Sequence[Tokens], Sequence[str]]:
    """Return `-x > -1` as `x < 1`: the name without its minus, and the bound negated."""
    if len(sides) != 2 or any(map(name_of, sides)):
        return sides, operators
    left, right = sides
    is_left_name = _is_negated_name(left)
    if is_left_name == _is_negated_name(right):
        return sides, operators
    turned = operators[::-1]
    if is_left_name:
        return [_negated(right), left[1:]], turned
    return [right[1:], _negated(left)], turned


def _is_negated_name(side: Tokens) -> bool:
    if side[0].text != "-":
        return False
    return name_of(side[1:]) is not None


def _negated(side: Tokens) -> Tokens:
    return (_MINUS, Token(OPEN, "("), *side, Token(CLOSE, ")"))


def _ring(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> _Solution | None:
    """Return the set of an absolute value between two bounds, as `1 <= |x| <= 2`."""
    outer = _distance(sides[:2], operators[:1], read)
    inner = _distance(sides[1:], operators[1:], read)
    if outer is None or inner is None:
        return None
    name, outside = outer
    other_name, inside = inner
    both = sets.intersection((outside, inside))
    if both is None or name != other_name:
        return None
    return _Solution(name, both)


def _distance(sides: Sequence[Tokens], operators: Sequence[str], read: Read) -> _Solution | None:
    """Return the interval of `|x - 1| <= 2`, or the outside of one of `|x| > 3`."""
    if not all(sides):
        return None
    if len(sides) == 3:
        return _ring(sides, operators, read)
    if len(sides) != 2:
        return None
    left, right = sides
    is_inside = left[0].text == "|"
    distance = left if is_inside else right
    limit = right if is_inside else left
    around = _center(distance)
    radius = only_formula(limit, read)
    if around is None or radius is None or free_symbols(radius):
        return None
    name, center = around
    low = operation("add", center, negative(radius))
    high = operation("add", center, radius)
    is_closed = operators[0] == "<="
    if is_inside:
        inside = sets.bounded(low, high, closed=(is_closed, is_closed))
        return _Solution(name, inside)
    # The ends belong to the outside where they do not belong to the interval.
    is_open = not is_closed
    excluded = sets.bounded(low, high, closed=(is_open, is_open))
    outside = sets.complement(excluded)
    if outside is None:
        return None
    return _Solution(name, outside)


def _center(tokens: Tokens) -> tuple[Name, Node] | None:
    """Return `(x, a)` for `|x - a|`."""
    found = readings(tokens)
    if not found:
        return None
    match found[0]:
        case Operation("abs", (inner,)):
            return _shifted_variable(inner)
    return None


def _shifted_variable(node: Node) -> tuple[Name, Node] | None:
    """Return `(x, a)` for `x - a`, and `(x, 0)` for `x` alone."""
    names = free_symbols(node)
    if len(names) != 1:
        return None
    (variable,) = names
    name = Name(variable, may_be_dropped=True)
    match node:
        case Operation("add", (first, Number() as second)):
            if free_symbols(first) == names and not isinstance(first, Operation):
                return name, negative(second)
    if isinstance(node, Operation):
        return None
    return name, Number(Fraction(0))
