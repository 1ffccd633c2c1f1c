"""Decides whether two formulas are equal, safely: a formula without a value equals nothing but itself.

    the same tree ─────────────────────────────────────────────────────────▶ equal
    one quotient of polynomials ───────────────────────────────────────────▶ equal, or certainly not
    rational numbers, roots and arithmetic: a ball below the bound of 0 ───▶ equal, or certainly not
    no variables: balls with growing precision ─▶ apart ───────────────────▶ certainly not
                                                └▶ agree to 900 digits ────▶ equal
    variables: points of many scales and kinds ─▶ apart at one, or only one has a value ─▶ not
                                                └▶ agree at all ───────────▶ equal

Everything else is not equal. Both formulas are written before any point is drawn. That points tell formulas
apart: Schwartz 1980, Zippel 1979.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from flint import acb, arb, ctx, fmpq

from realrl.verifier import algebraic
from realrl.verifier.arithmetic import Imprecise, NoValue, Pole, Scalar, Unwieldy, ball
from realrl.verifier.evaluation import Point, evaluated
from realrl.verifier.nodes import Array, Constant, Node, free_symbols, negative, operation, walk
from realrl.verifier.points import points, variable_kinds
from realrl.verifier.rational import NotRational, same_quotient

PRECISIONS = (128, 512, 4096)
"""The precisions in bits with which values at a point are computed, until one tells."""
CONSTANT_PRECISIONS = (128, 512, 2048, 6144)
"""The same for formulas without variables, where even a tiny difference counts."""
_AGREEING = 0.5
"""The share of the precision to which two values must agree to count as the same."""
LEAST_COMPARED = 0.5
"""The share of the points at which both formulas must have a value."""
MAX_UNKNOWN = 12
"""Points that may tell nothing; after so many the comparison stops, and the formulas count as different."""

SAME = "same"
APART = "apart"
UNKNOWN = "unknown"


class Means(Enum):
    """The step that decides whether two formulas are equal."""

    TREE = "tree"
    SHAPES = "shapes"
    """The shapes of matrices differ, or only one is a matrix."""
    ENTRIES = "entries"
    INFINITY = "infinity"
    QUOTIENT = "quotient"
    ROOTS = "roots"
    POINTS = "points"


class Decision(NamedTuple):
    """Whether two formulas are equal, and what decided it."""

    same: bool
    means: Means
    point: Point | None = None
    """The point at which the values differ."""
    num_compared: int = 0
    """The number of points at which the values agree."""
    num_points: int = 0


def equal(left: Node, right: Node) -> bool:
    """Return whether two formulas have the same value, wherever they have one."""
    return decision(left, right).same


def decision(left: Node, right: Node) -> Decision:
    """Return whether two formulas have the same value, wherever they have one, and what decided."""
    if left == right:
        return Decision(True, Means.TREE)
    if isinstance(left, Array) or isinstance(right, Array):
        return _of_arrays(left, right)
    if _is_valueless(left) or _is_valueless(right):
        return Decision(False, Means.INFINITY)
    try:
        is_same, is_certain = same_quotient(left, right)
    except NotRational:
        is_same, is_certain = False, False
    if is_same or is_certain:
        return Decision(is_same, Means.QUOTIENT)
    difference = operation("add", left, negative(right))
    is_zero = algebraic.is_zero(difference)
    if is_zero is not None:
        return Decision(is_zero, Means.ROOTS)
    return _at_points(left, right)


def _of_arrays(left: Node, right: Node) -> Decision:
    if not (isinstance(left, Array) and isinstance(right, Array)):
        return Decision(False, Means.SHAPES)
    lengths = [len(row) for row in left.rows]
    other_lengths = [len(row) for row in right.rows]
    if lengths != other_lengths:
        return Decision(False, Means.SHAPES)
    for row, other in zip(left.rows, right.rows, strict=True):
        if not all(map(equal, row, other)):
            return Decision(False, Means.ENTRIES)
    return Decision(True, Means.ENTRIES)


def _is_valueless(node: Node) -> bool:
    """Return whether a formula contains infinity, which is no number."""
    for inner in walk(node):
        if isinstance(inner, Constant) and inner.name == "infinity":
            return True
    return False


def _at_points(left: Node, right: Node) -> Decision:
    names = free_symbols(left) | free_symbols(right)
    kinds = variable_kinds(names, (left, right))
    precisions = PRECISIONS if names else CONSTANT_PRECISIONS
    compared = 0
    total = 0
    num_unknown = 0
    for point, is_special in points(kinds, (left, right)):
        verdict = compared_at(left, right, point, precisions)
        if verdict is APART:
            return Decision(False, Means.POINTS, point)
        if verdict is SAME:
            compared += 1
        # Special points, such as 0, often have no value: they count only where they agree.
        if verdict is SAME or not is_special:
            total += 1
        if verdict is UNKNOWN:
            num_unknown += 1
        if num_unknown == MAX_UNKNOWN:
            break
    are_same = num_unknown < MAX_UNKNOWN and compared > LEAST_COMPARED * total
    return Decision(are_same, Means.POINTS, None, compared, total)


def compared_at(left: Node, right: Node, point: Point, precisions: tuple[int, ...] = PRECISIONS) -> str:
    """Return how two formulas compare at a point: `SAME`, `APART` or `UNKNOWN`.

    `UNKNOWN` says that neither has a value, one has a pole or takes too long, or no precision tells.
    """
    for precision in precisions:
        try:
            first = _value(left, point, precision)
            second = _value(right, point, precision)
        except Imprecise:
            continue
        except (Pole, Unwieldy):
            return UNKNOWN
        if first is None or second is None:
            if first is second:
                return UNKNOWN
            return APART
        with ctx.workprec(precision):
            verdict = _compared(first, second, precision, is_last=precision == precisions[-1])
        if verdict is not UNKNOWN:
            return verdict
    return UNKNOWN


def _value(node: Node, point: Point, precision: int) -> Scalar | None:
    """Return the value of a formula; None if it certainly has none."""
    try:
        return evaluated(node, point, precision)
    except (Imprecise, Pole, Unwieldy):
        raise
    except NoValue:
        return None


def _compared(first: Scalar, second: Scalar, precision: int, *, is_last: bool) -> str:
    """Return how two values compare; balls that overlap count as the same only at the last precision."""
    if isinstance(first, fmpq) and isinstance(second, fmpq):
        if first == second:
            return SAME
        return APART
    first = ball(first)
    second = ball(second)
    if not first.overlaps(second):
        return APART
    if not is_last:
        return UNKNOWN
    gap = (first - second).abs_upper()
    tolerance = arb(2) ** -int(_AGREEING * precision) * _size(first, second)
    if gap < tolerance:
        return SAME
    if gap < arb(2) ** -(precision // 3):
        return SAME
    return UNKNOWN


def _size(first: acb, second: acb) -> arb:
    """Return the size of the larger value, at most 1: a gap is relative only to small values."""
    bounds = (first.abs_lower(), second.abs_lower())
    larger = max(bounds, key=lambda bound: float(bound.mid()))
    return arb(1).min(larger)
