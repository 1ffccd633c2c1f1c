"""Compares antiderivatives and solutions with free constants, which may be any number."""

from __future__ import annotations

import re
from itertools import permutations

from realrl.verifier.arithmetic import NoValue, Scalar, ball, is_real
from realrl.verifier.equality import PRECISIONS, equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, Operation, Symbol, children, free_symbols, operation, substituted
from realrl.verifier.points import points, variable_kinds

ANSWER_CONSTANTS = frozenset(("C", "c", "K", "k", "A", "B", "D"))
"""The names that an answer may use for a free constant."""
_VARIABLES = frozenset(("x", "y", "z", "t", "u", "v", "w", "s", "r", r"\theta", r"\phi"))
_FREE = re.compile(r"C|[Cc]_\{\d\}")
MAX_RENAMED = 3
"""The largest number of free constants whose names are tried in every order."""
_TOLERANCE_BITS = 300


def same_up_to_constant(answer: Node, solution: Node) -> bool:
    """Return whether a solution ends in `+ C` and an answer differs from it only by a constant.

    The answer may write its constant or leave it out.
    """
    wanted = _without_constant(solution, frozenset("CcK"))
    if wanted is None or free_symbols(answer) == frozenset():
        return False
    mine = _without_constant(answer, ANSWER_CONSTANTS)
    if mine is None:
        # The question may define a lower-case letter, so only `C` is surely a free constant.
        has_constant = bool(_constants(solution, frozenset("C")))
        return has_constant and equal(answer, wanted)
    names = free_symbols(mine) | free_symbols(wanted)
    if not free_symbols(mine) <= free_symbols(wanted):
        return False
    if not names:
        return False
    difference = operation("add", mine, operation("negative", wanted))
    return _is_constant(difference, names)


def same_with_other_constants(answer: Node, solution: Node) -> bool:
    """Return whether an answer is a solution whose free constants are renamed: `Ae^{2x}` for `Ce^{2x}`.

    The free constants of a solution are `C`, and `C` or `c` with an index. The question may define any
    other letter.
    """
    solution_names = free_symbols(solution)
    free = {name for name in solution_names if _FREE.fullmatch(name)}
    others = solution_names - free
    renamed = free_symbols(answer) - others
    if not free or len(renamed) != len(free):
        return False
    if len(free) > MAX_RENAMED or not others & _VARIABLES:
        return False
    if renamed == free or not _may_be_constants(renamed):
        return False
    wanted = [Symbol(name) for name in sorted(free)]
    for order in permutations(sorted(renamed)):
        renaming = dict(zip(order, wanted, strict=True))
        if equal(substituted(answer, renaming), solution):
            return True
    return False


def _may_be_constants(names: set[str] | frozenset[str]) -> bool:
    """Return whether an answer may use all these names, perhaps with an index, for free constants."""
    return all(_letter(name) in ANSWER_CONSTANTS for name in names)


def _letter(name: str) -> str:
    """Return a name without its index."""
    return name.partition("_")[0]


def _without_constant(node: Node, names: frozenset[str]) -> Node | None:
    """Return a sum in one variable without its free constant; None if it has no such constant."""
    if not (isinstance(node, Operation) and node.name == "add"):
        return None
    constants = _constants(node, names)
    if len(constants) != 1:
        return None
    (constant,) = constants
    rest = [term for term in node.operands if term != constant]
    variables = frozenset[str]()
    for term in rest:
        variables |= free_symbols(term)
    if constant.name in variables:
        return None
    if len(variables & _VARIABLES) != 1:
        return None
    # An upper-case letter may be another constant, which would make the free one ambiguous.
    if any(name.isupper() for name in variables):
        return None
    if len(rest) == 1:
        return rest[0]
    return Operation("add", tuple(rest))


def _constants(node: Node, names: frozenset[str]) -> list[Symbol]:
    """Return the terms that are a symbol with one of these names, perhaps with an index."""
    symbols = [term for term in children(node) if isinstance(term, Symbol)]
    return [symbol for symbol in symbols if _letter(symbol.name) in names]


def _is_constant(difference: Node, names: frozenset[str]) -> bool:
    """Return whether a formula has the same real value wherever it has a real value."""
    first: Scalar | None = None
    # The numbers of points with a real value, and of all points.
    seen = 0
    total = 0
    kinds = variable_kinds(names, (difference,))
    for point, _ in points(kinds, (difference, difference)):
        total += 1
        try:
            value = evaluated(difference, point, PRECISIONS[-1])
        except NoValue:
            continue
        if not is_real(value):
            continue
        seen += 1
        if first is None:
            first = value
        if not _agrees(first, value):
            return False
    # A formula with real values at fewer than a third of the points says too little.
    return seen * 3 > total


def _agrees(first: Scalar, second: Scalar) -> bool:
    """Return whether two values are equal up to `2 ** -_TOLERANCE_BITS`, relative to values above 1."""
    from flint import arb, ctx

    with ctx.workprec(PRECISIONS[-1]):
        gap = (ball(first) - ball(second)).abs_upper()
        size = arb(1) + ball(first).abs_upper()
        tolerance = size * arb(2) ** -_TOLERANCE_BITS
        return bool(gap < tolerance)
