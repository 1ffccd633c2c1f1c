"""Whether two formulas are equal, safely: what has no value equals nothing but itself.

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
"""The same for formulas without variables, where a tiny difference is one."""
_AGREEING = 0.5
"""The share of the precision to which two values agree that count as one."""
LEAST_COMPARED = 0.5
"""The share of the points at which both formulas must have a value."""
MAX_UNKNOWN = 12
"""Points that tell nothing, after which the rest is not looked at: the formulas are taken to differ."""

SAME, APART, UNKNOWN = "same", "apart", "unknown"


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
    """Whether two formulas have the same value, wherever they have one."""
    return decision(left, right).same


def decision(left: Node, right: Node) -> Decision:
    """Whether two formulas have the same value, wherever they have one, and why."""
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
    is_zero = algebraic.is_zero(operation("add", left, negative(right)))
    return _at_points(left, right) if is_zero is None else Decision(is_zero, Means.ROOTS)


def _of_arrays(left: Node, right: Node) -> Decision:
    if not (isinstance(left, Array) and isinstance(right, Array)):
        return Decision(False, Means.SHAPES)
    if [len(row) for row in left.rows] != [len(row) for row in right.rows]:
        return Decision(False, Means.SHAPES)
    pairs = zip(left.rows, right.rows, strict=True)
    return Decision(all(all(map(equal, *rows)) for rows in pairs), Means.ENTRIES)


def _is_valueless(node: Node) -> bool:
    return any(isinstance(inner, Constant) and inner.name == "infinity" for inner in walk(node))


def _at_points(left: Node, right: Node) -> Decision:
    names = free_symbols(left) | free_symbols(right)
    kinds = variable_kinds(names, (left, right))
    precisions = PRECISIONS if names else CONSTANT_PRECISIONS
    compared = total = 0
    most = MAX_UNKNOWN
    for point, is_special in points(kinds, (left, right)):
        verdict = compared_at(left, right, point, precisions)
        if verdict is APART:
            return Decision(False, Means.POINTS, point)
        compared += verdict is SAME
        total += not is_special or verdict is SAME
        most -= verdict is UNKNOWN
        if not most:
            break
    return Decision(bool(most) and compared > LEAST_COMPARED * total, Means.POINTS, None, compared, total)


def compared_at(left: Node, right: Node, point: Point, precisions: tuple[int, ...] = PRECISIONS) -> str:
    """How two formulas compare at a point: `SAME`, `APART`, or `UNKNOWN` where neither has a value, one has
    a pole, or no precision tells.
    """
    for precision in precisions:
        try:
            first, second = _value(left, point, precision), _value(right, point, precision)
        except Imprecise:
            continue
        except (Pole, Unwieldy):
            return UNKNOWN
        if first is None or second is None:
            return UNKNOWN if first is second else APART
        with ctx.workprec(precision):
            verdict = _compared(first, second, precision, is_last=precision == precisions[-1])
        if verdict is not UNKNOWN:
            return verdict
    return UNKNOWN


def _value(node: Node, point: Point, precision: int) -> Scalar | None:
    try:
        return evaluated(node, point, precision)
    except (Imprecise, Pole, Unwieldy):
        raise
    except NoValue:
        return None


def _compared(first: Scalar, second: Scalar, precision: int, *, is_last: bool) -> str:
    if isinstance(first, fmpq) and isinstance(second, fmpq):
        return SAME if first == second else APART
    first, second = ball(first), ball(second)
    if not first.overlaps(second):
        return APART
    gap = (first - second).abs_upper()
    if not is_last:
        return UNKNOWN
    agrees = gap < arb(2) ** -int(_AGREEING * precision) * _size(first, second)
    return SAME if agrees or gap < arb(2) ** -(precision // 3) else UNKNOWN


def _size(first: acb, second: acb) -> arb:
    """How large the values are, up to 1: a gap counts as it is, but relative to small values."""
    return arb(1).min(max(first.abs_lower(), second.abs_lower(), key=lambda bound: float(bound.mid())))
