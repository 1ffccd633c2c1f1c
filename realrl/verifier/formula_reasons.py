"""Words why two formulas are equal or not, by the means that decided: equality.py has their order."""

from __future__ import annotations

import math
from collections.abc import Iterator

from flint import acb, arb, ctx, fmpq

from realrl.verifier.arithmetic import NoValue, Scalar, ball
from realrl.verifier.equality import CONSTANT_PRECISIONS, PRECISIONS, Decision, Means, decision, equal
from realrl.verifier.evaluation import Point, evaluated
from realrl.verifier.families import same_up_to_constant, same_with_other_constants
from realrl.verifier.formula_rules import same_angles, same_by_engineers_j, same_without_degrees
from realrl.verifier.limits import ANSWER_DIGITS, SOLUTION_DIGITS
from realrl.verifier.nodes import Array, Node, free_symbols
from realrl.verifier.points import points, variable_kinds
from realrl.verifier.rounding import stands_for

_PRECISION = 2048
_DIGITS = (8, 20, 60, 200)
"""The numbers of decimals to try until two values are shown differently."""
_MOST_CHARS = 24
"""The largest number of characters of a fraction; a longer one is shown in decimals."""

_SAME = {
    Means.TREE: "they are written alike",
    Means.ENTRIES: "their entries are equal, one by one",
    Means.QUOTIENT: "they are equal, exactly: one quotient of polynomials",
    Means.ROOTS: "they are equal, exactly: their difference is 0, by the bound of numbers made of roots",
}


def why_equal(answer: Node, solution: Node) -> str:
    """Return why an answer counts as a solution's value."""
    found = decision(answer, solution)
    if found.same:
        return _SAME.get(found.means) or _agreement(answer, solution, found)
    return _why_counted(answer, solution)


def _why_counted(answer: Node, solution: Node) -> str:
    """Return which rule counts an answer as a solution's value that it is not equal to."""
    # The order is that of formula_rules.py, so that the rule that decided is the one that is named.
    if same_up_to_constant(answer, solution):
        return "they differ by a constant, for which the solution has a letter"
    if stands_for(answer, solution, ANSWER_DIGITS):
        return "the answer is the solution's value in decimals, rounded or cut off"
    if stands_for(solution, answer, SOLUTION_DIGITS):
        return "the solution is the answer's value in decimals, rounded or cut off"
    if same_by_engineers_j(answer, solution):
        return "they are equal, with j as the imaginary unit"
    if same_angles(answer, solution):
        return "they are one family of angles, whatever its whole number is called"
    if same_with_other_constants(answer, solution):
        return "they are equal, with other names for the solution's free constants"
    if same_without_degrees(answer, solution):
        return "they are equal, where the sign of degrees is left out"
    raise AssertionError("a rule for two formulas that has no reason")


def _agreement(answer: Node, solution: Node, found: Decision) -> str:
    has_variables = bool(free_symbols(answer) | free_symbols(solution))
    if has_variables:
        decimals = _decimals_of(PRECISIONS[-1])
        return f"they agree at {found.num_compared} points, to {decimals} decimals"
    decimals = _decimals_of(CONSTANT_PRECISIONS[-1])
    return f"they agree to {decimals} decimals"


def _decimals_of(precision: int) -> int:
    """Return the least number of decimals to which equal values agree: a third of the bits, in hundreds."""
    decimals = int(precision / 3 * math.log10(2))
    return decimals // 100 * 100


def why_different(answer: Node, solution: Node) -> str:
    """Return why two formulas are not equal."""
    found = decision(answer, solution)
    if found.means is Means.SHAPES:
        return "matrices of other shapes, or a matrix and none"
    if isinstance(answer, Array) and isinstance(solution, Array):
        return _different_entries(answer, solution)
    if found.means is Means.INFINITY:
        return "one has infinity in it, which is no number: it equals nothing but the same formula"
    if found.means is Means.POINTS and found.point is None:
        return (
            f"they have values at {found.num_compared} of {found.num_points} points only, where they agree:"
            " that is too few to tell"
        )
    point = found.point
    if point is None:
        point = _some_point(answer, solution)
    return _apart(answer, solution, point)


def _different_entries(answer: Array, solution: Array) -> str:
    rows = zip(answer.rows, solution.rows, strict=True)
    for row, (mine, wanted) in enumerate(rows, 1):
        entries = zip(mine, wanted, strict=True)
        for column, (entry, wanted_entry) in enumerate(entries, 1):
            if not equal(entry, wanted_entry):
                reason = why_different(entry, wanted_entry)
                return f"entry {column} of row {row}: {reason}"
    raise AssertionError("matrices that are equal")


def _some_point(left: Node, right: Node) -> Point:
    """Return a point at which the values of two different quotients of polynomials differ."""
    names = free_symbols(left) | free_symbols(right)
    kinds = variable_kinds(names, (left, right))
    for point, _ in points(kinds, (left, right)):
        first = _value(left, point)
        second = _value(right, point)
        if first is None or second is None:
            continue
        if _shown_apart(first, second) is not None:
            return point
    return {}


def _apart(left: Node, right: Node, point: Point) -> str:
    """Return how the values of two formulas differ at a point."""
    first = _value(left, point)
    second = _value(right, point)
    where = _at_point(point)
    if first is None or second is None:
        has_value = "the solution" if first is None else "the answer"
        return f"only {has_value} has a value that can be computed{where}"
    shown = _shown_apart(first, second)
    if shown is None:
        return f"their values differ{where}"
    return f"their values differ{where}: {shown[0]} and {shown[1]}"


def _at_point(point: Point) -> str:
    """Return ` at x = 1, y = 2`; an empty text for a point without variables."""
    if not point:
        return ""
    values: list[str] = []
    for name, value in sorted(point.items()):
        shown = _shown(value, _DIGITS[0])
        values.append(f"{name} = {shown}")
    return f" at {', '.join(values)}"


def _value(node: Node, point: Point) -> Scalar | None:
    try:
        return evaluated(node, point, _PRECISION)
    except NoValue:
        return None


def _shown_apart(first: Scalar, second: Scalar) -> tuple[str, str] | None:
    """Return two values with enough digits to differ; None if they look alike with all digits."""
    if isinstance(first, fmpq) and isinstance(second, fmpq):
        shown = _shown(first, _DIGITS[0])
        other = _shown(second, _DIGITS[0])
        if shown != other:
            return shown, other
    for digits in _DIGITS:
        shown = _decimal(first, digits)
        other = _decimal(second, digits)
        if shown != other:
            return shown, other
    return None


def _shown(value: Scalar, digits: int) -> str:
    if isinstance(value, fmpq) and len(str(value)) <= _MOST_CHARS:
        return str(value)
    return _decimal(value, digits)


def _decimal(value: Scalar, digits: int) -> str:
    with ctx.workprec(_PRECISION):
        parts = _parts(ball(value), digits)
        return " + ".join(parts).replace("+ -", "- ")


def _parts(value: acb, digits: int) -> Iterator[str]:
    if not value.real.is_zero() or value.imag.is_zero():
        yield _decimals(value.real, digits)
    if not value.imag.is_zero():
        yield f"{_decimals(value.imag, digits)}*i"


def _decimals(value: arb, digits: int) -> str:
    return value.str(digits, radius=False)
