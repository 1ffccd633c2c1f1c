"""Computes with sets of real numbers: unions of intervals, in one form if their bounds are numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cmp_to_key

from realrl.verifier.arithmetic import NoValue, Scalar, ball
from realrl.verifier.equality import equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, free_symbols, whole
from realrl.verifier.operations import order_of
from realrl.verifier.tree import Bound, Interval, RealSet

ALL = RealSet((Interval(Bound(None), Bound(None)),))
MAX_WHOLE_NUMBERS = 200
"""The largest length of an interval whose whole numbers are listed."""
_LARGEST_BOUND = 1e6
_PRECISION = 256
"""The precision in bits with which bounds are compared."""


def bounded(low: Node | None, high: Node | None, *, closed: tuple[bool, bool]) -> RealSet:
    """Return one interval; `closed` says whether it has its lower and its upper bound."""
    has_low, has_high = closed
    interval = Interval(Bound(low, has_low), Bound(high, has_high))
    return RealSet((interval,))


def same_set(left: RealSet, right: RealSet) -> bool:
    """Return whether two sets are equal: in one form if their bounds are numbers, else as they are."""
    if len(left.parts) == len(right.parts) == 1:
        return _same_interval(left.parts[0], right.parts[0])
    first = merged(left)
    second = merged(right)
    if not first.parts or not second.parts:
        return not left.parts and not right.parts
    if len(first.parts) != len(second.parts):
        return False
    rest = list(second.parts)
    for part in first.parts:
        twin = _same_as(part, rest)
        if twin is None:
            return False
        rest.remove(twin)
    return True


def _same_as(part: Interval, others: Sequence[Interval]) -> Interval | None:
    """Return the first of several intervals that is equal to one; None if there is none."""
    for other in others:
        if _same_interval(part, other):
            return other
    return None


def _same_interval(left: Interval, right: Interval) -> bool:
    if not _same_bound(left.low, right.low):
        return False
    return _same_bound(left.high, right.high)


def _same_bound(left: Bound, right: Bound) -> bool:
    if left.is_closed != right.is_closed:
        return False
    if left.node is None or right.node is None:
        return left.node is right.node
    return equal(left.node, right.node)


def merged(union: RealSet) -> RealSet:
    """Return the same set with disjoint intervals in their order; unchanged if a bound is not a number."""
    try:
        filled = _without_empty(union.parts)
        found: list[Interval] = []
        for part in sorted(filled, key=cmp_to_key(_order_of_intervals)):
            if found and _touch(found[-1].high, part.low):
                before = found.pop()
                high = _upper(before.high, part.high)
                part = Interval(before.low, high)
            found.append(part)
    except NoValue:
        return union
    return RealSet(tuple(found))


def _without_empty(parts: Iterable[Interval]) -> list[Interval]:
    return [part for part in parts if not _is_empty(part)]


def intersection(sets: Sequence[RealSet]) -> RealSet | None:
    """Return the intersection of sets; None if a bound is not a number."""
    total = ALL
    try:
        for each in sets:
            common = _without_empty(_common_parts(total, each))
            total = merged(RealSet(tuple(common)))
    except NoValue:
        return None
    return total


def _common_parts(left: RealSet, right: RealSet) -> Iterator[Interval]:
    """Yield what each interval of one set has in common with each of the other; it may be empty."""
    for part in left.parts:
        for other in right.parts:
            low = _inner_low(part.low, other.low)
            high = _inner_high(part.high, other.high)
            yield Interval(low, high)


def complement(union: RealSet) -> RealSet | None:
    """Return all real numbers that are not in a set; None if a bound is not a number."""
    try:
        _check_numbers(union.parts)
    except NoValue:
        return None
    parts: list[Interval] = []
    low = Bound(None)
    for part in merged(union).parts:
        if part.low.node is not None:
            high = Bound(part.low.node, not part.low.is_closed)
            parts.append(Interval(low, high))
        if part.high.node is None:
            return RealSet(tuple(parts))
        low = Bound(part.high.node, not part.high.is_closed)
    parts.append(Interval(low, Bound(None)))
    return RealSet(tuple(parts))


def _check_numbers(parts: Sequence[Interval]) -> None:
    """Compute all bounds.

    Raises:
        NoValue: A bound is not a number.
    """
    for part in parts:
        for bound in (part.low, part.high):
            if bound.node is not None:
                _value(bound.node)


def whole_numbers(union: RealSet) -> list[int] | None:
    """Return the whole numbers of a bounded set; None if there are too many, or a bound is not a number."""
    found: list[int] = []
    try:
        for part in merged(union).parts:
            low = part.low.node
            high = part.high.node
            if low is None or high is None:
                return None
            least = _about(low)
            most = _about(high)
            if not -_LARGEST_BOUND < least <= most < _LARGEST_BOUND:
                return None
            if most - least > MAX_WHOLE_NUMBERS:
                return None
            # The floats are near the bounds, which are compared exactly with every number.
            candidates = range(int(least) - 2, int(most) + 3)
            found.extend(number for number in candidates if _contains(part, low, high, number))
    except NoValue:
        return None
    return found


def _contains(part: Interval, low: Node, high: Node, number: int) -> bool:
    """Return whether an interval, whose bounds are `low` and `high`, contains a number."""
    at = whole(number)
    after_low = _order(low, at)
    before_high = _order(at, high)
    is_above = after_low < 0 or (after_low == 0 and part.low.is_closed)
    is_below = before_high < 0 or (before_high == 0 and part.high.is_closed)
    return is_above and is_below


def _about(node: Node) -> float:
    """Return the value of a bound in floating point."""
    value = ball(_value(node))
    return float(value.real.mid())


def _value(node: Node) -> Scalar:
    """Return the value of a bound.

    Raises:
        NoValue: The bound is not a number.
    """
    if free_symbols(node):
        raise NoValue("no number")
    return evaluated(node, {}, _PRECISION)


def _order(left: Node, right: Node) -> int:
    """Return the order of two bounds, as `operations.order_of` does."""
    if equal(left, right):
        # Equal formulas may still not be numbers.
        _value(left)
        return 0
    return order_of(_value(left), _value(right))


def _order_of_lows(left: Bound, right: Bound) -> int:
    """Return the order of two lower bounds; of equal ones a closed one comes first."""
    if left.node is None or right.node is None:
        return (left.node is not None) - (right.node is not None)
    return _order(left.node, right.node) or right.is_closed - left.is_closed


def _order_of_highs(left: Bound, right: Bound) -> int:
    """Return the order of two upper bounds; of equal ones a closed one comes last."""
    if left.node is None or right.node is None:
        return (right.node is not None) - (left.node is not None)
    return _order(left.node, right.node) or left.is_closed - right.is_closed


def _order_of_intervals(left: Interval, right: Interval) -> int:
    return _order_of_lows(left.low, right.low)


def _inner_low(left: Bound, right: Bound) -> Bound:
    """Return the larger of two lower bounds; the left one of equal ones."""
    if _order_of_lows(left, right) >= 0:
        return left
    return right


def _inner_high(left: Bound, right: Bound) -> Bound:
    """Return the smaller of two upper bounds; the left one of equal ones."""
    if _order_of_highs(left, right) <= 0:
        return left
    return right


def _upper(left: Bound, right: Bound) -> Bound:
    """Return the larger of two upper bounds; the left one of equal ones."""
    if _order_of_highs(left, right) >= 0:
        return left
    return right


def _touch(high: Bound, low: Bound) -> bool:
    """Return whether an interval that begins at `low` leaves no gap after one that ends at `high`."""
    if high.node is None or low.node is None:
        return True
    order = _order(low.node, high.node)
    if order < 0:
        return True
    return order == 0 and (low.is_closed or high.is_closed)


def _is_empty(part: Interval) -> bool:
    if part.low.node is None or part.high.node is None:
        _check_numbers([part])
        return False
    order = _order(part.low.node, part.high.node)
    is_point = order == 0 and part.low.is_closed and part.high.is_closed
    return order >= 0 and not is_point
