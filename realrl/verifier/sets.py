"""Sets of real numbers: unions of intervals, brought to one form where their bounds are numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key

from realrl.verifier.arithmetic import NoValue, Scalar, ball
from realrl.verifier.equality import equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, free_symbols, whole
from realrl.verifier.operations import order_of
from realrl.verifier.tree import Bound, Interval, RealSet

ALL = RealSet((Interval(Bound(None), Bound(None)),))
_PRECISION = 256


def bounded(low: Node | None, high: Node | None, *, closed: tuple[bool, bool]) -> RealSet:
    """One interval; `closed` is about its lower and its upper bound."""
    return RealSet((Interval(Bound(low, closed[0]), Bound(high, closed[1])),))


def same_set(left: RealSet, right: RealSet) -> bool:
    """Whether two sets are equal: in one form where their bounds are numbers, else interval by interval."""
    if len(left.parts) == len(right.parts) == 1:
        return _same_interval(left.parts[0], right.parts[0])
    first, second = merged(left), merged(right)
    if not first.parts or not second.parts:
        return not left.parts and not right.parts
    if len(first.parts) != len(second.parts):
        return False
    rest = list(second.parts)
    for part in first.parts:
        twin = next((other for other in rest if _same_interval(part, other)), None)
        if twin is None:
            return False
        rest.remove(twin)
    return True


def _same_interval(left: Interval, right: Interval) -> bool:
    return _same_bound(left.low, right.low) and _same_bound(left.high, right.high)


def _same_bound(left: Bound, right: Bound) -> bool:
    if left.is_closed != right.is_closed or (left.node is None) != (right.node is None):
        return False
    return left.node is None or equal(left.node, right.node)


def merged(union: RealSet) -> RealSet:
    """The same set with disjoint intervals in their order, where all bounds are numbers; else as it is."""
    try:
        parts = sorted(
            (part for part in union.parts if not _is_empty(part)),
            key=cmp_to_key(lambda a, b: _compared(a.low, b.low, is_low=True)),
        )
        found: list[Interval] = []
        for part in parts:
            if found and _touch(found[-1].high, part.low):
                high = max(
                    found[-1].high, part.high, key=cmp_to_key(lambda a, b: _compared(a, b, is_low=False))
                )
                found[-1] = Interval(found[-1].low, high)
            else:
                found.append(part)
    except NoValue:
        return union
    return RealSet(tuple(found))


def intersection(sets: Sequence[RealSet]) -> RealSet | None:
    """The intersection of sets; None where a bound is no number."""
    try:
        total = ALL
        for each in sets:
            total = RealSet(tuple(_both(a, b) for a in total.parts for b in each.parts))
            total = merged(RealSet(tuple(part for part in total.parts if not _is_empty(part))))
    except NoValue:
        return None
    return total


def complement(union: RealSet) -> RealSet | None:
    """All real numbers that are not in a set; None where a bound is no number."""
    try:
        _check_numbers(union)
    except NoValue:
        return None
    parts, low = [], Bound(None)
    for part in merged(union).parts:
        if part.low.node is not None:
            parts.append(Interval(low, Bound(part.low.node, not part.low.is_closed)))
        if part.high.node is None:
            return RealSet(tuple(parts))
        low = Bound(part.high.node, not part.high.is_closed)
    return RealSet((*parts, Interval(low, Bound(None))))


def _check_numbers(union: RealSet) -> None:
    for part in union.parts:
        for bound in (part.low, part.high):
            if bound.node is not None:
                _value(bound.node)


def whole_numbers(union: RealSet, most: int = 200) -> list[int] | None:
    """The whole numbers of a bounded set, if there are not too many."""
    found: list[int] = []
    try:
        for part in merged(union).parts:
            if part.low.node is None or part.high.node is None:
                return None
            low, high = (_about(bound.node) for bound in (part.low, part.high))
            if not -1e6 < low <= high < 1e6 or high - low > most:
                return None
            for number in range(int(low) - 2, int(high) + 3):
                if _contains(part, number):
                    found.append(number)
    except NoValue:
        return None
    return found


def _contains(part: Interval, number: int) -> bool:
    at = whole(number)
    low, high = _order(part.low.node, at), _order(at, part.high.node)
    return (low < 0 or (low == 0 and part.low.is_closed)) and (
        high < 0 or (high == 0 and part.high.is_closed)
    )


def _about(node: Node) -> float:
    return float(ball(_value(node)).real.mid())


def _value(node: Node) -> Scalar:
    if free_symbols(node):
        raise NoValue("no number")
    return evaluated(node, {}, _PRECISION)


def _order(left: Node, right: Node) -> int:
    if equal(left, right):
        _value(left)
        return 0
    return order_of(_value(left), _value(right))


def _compared(left: Bound, right: Bound, *, is_low: bool) -> int:
    """The order of two bounds of one side; of equal ones a closed one is further outside."""
    if left.node is None or right.node is None:
        inner = (left.node is not None) - (right.node is not None)
        return inner if is_low else -inner
    order = _order(left.node, right.node)
    if order:
        return order
    outer = right.is_closed - left.is_closed
    return outer if is_low else -outer


def _touch(high: Bound, low: Bound) -> bool:
    """Whether an interval that begins at `low` leaves no gap after one that ends at `high`."""
    if high.node is None or low.node is None:
        return True
    order = _order(low.node, high.node)
    return order < 0 or (order == 0 and (low.is_closed or high.is_closed))


def _is_empty(part: Interval) -> bool:
    if part.low.node is None or part.high.node is None:
        _check_numbers(RealSet((part,)))
        return False
    order = _order(part.low.node, part.high.node)
    return order > 0 or (order == 0 and not (part.low.is_closed and part.high.is_closed))


def _both(left: Interval, right: Interval) -> Interval:
    low = max(left.low, right.low, key=cmp_to_key(lambda a, b: _compared(a, b, is_low=True)))
    high = min(left.high, right.high, key=cmp_to_key(lambda a, b: _compared(a, b, is_low=False)))
    return Interval(low, high)
