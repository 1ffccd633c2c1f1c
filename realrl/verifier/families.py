"""Antiderivatives: formulas with a free constant, which stands for any number."""

from __future__ import annotations

import re
from itertools import permutations

from realrl.verifier.arithmetic import NoValue, Scalar, ball, is_real
from realrl.verifier.equality import PRECISIONS, equal
from realrl.verifier.evaluation import evaluated
from realrl.verifier.nodes import Node, Operation, Symbol, children, free_symbols, operation, substituted
from realrl.verifier.points import points, variable_kinds

ANSWER_CONSTANTS = frozenset(("C", "c", "K", "k", "A", "B", "D"))
"""How a free constant of an answer may be called."""
_VARIABLES = frozenset(("x", "y", "z", "t", "u", "v", "w", "s", "r", r"\theta", r"\phi"))
_FREE = re.compile(r"C|[Cc]_\{\d\}")
MAX_RENAMED = 3
"""The largest number of free constants whose names are tried in every order."""
_TOLERANCE_BITS = 300


def same_up_to_constant(answer: Node, solution: Node) -> bool:
    """Whether a solution ends in `+ C`, and an answer differs from it by a constant, written or not."""
    wanted = _without_constant(solution, frozenset("CcK"))
    if wanted is None or free_symbols(answer) == frozenset():
        return False
    mine = _without_constant(answer, ANSWER_CONSTANTS)
    if mine is None:
        # A small letter may be given by the question.
        return _has_constant(solution, "C") and equal(answer, wanted)
    names = free_symbols(mine) | free_symbols(wanted)
    if not free_symbols(mine) <= free_symbols(wanted) or not names:
        return False
    return _is_constant(operation("add", mine, operation("negative", wanted)), names)


def same_with_other_constants(answer: Node, solution: Node) -> bool:
    """Whether an answer is a solution of which free constants have other names: `Ae^{2x}` for `Ce^{2x}`.

    Those of a solution are C, and C or c with an index: other letters may be given by the question.
    """
    free = {name for name in free_symbols(solution) if _FREE.fullmatch(name)}
    others = free_symbols(solution) - free
    renamed = free_symbols(answer) - others
    if not free or len(renamed) != len(free) or len(free) > MAX_RENAMED or not others & _VARIABLES:
        return False
    if renamed == free or not all(name.partition("_")[0] in ANSWER_CONSTANTS for name in renamed):
        return False
    wanted = [Symbol(name) for name in sorted(free)]
    names = (dict(zip(order, wanted, strict=True)) for order in permutations(sorted(renamed)))
    return any(equal(substituted(answer, each), solution) for each in names)


def _without_constant(node: Node, names: frozenset[str]) -> Node | None:
    """A sum of one variable without its free constant; None where there is none."""
    if not (isinstance(node, Operation) and node.name == "add"):
        return None
    constants = [
        term for term in node.operands if isinstance(term, Symbol) and term.name.partition("_")[0] in names
    ]
    rest = tuple(term for term in node.operands if term not in constants)
    variables = frozenset[str]().union(*map(free_symbols, rest))
    has_one = len(constants) == 1 and constants[0].name not in variables
    if not has_one or len(variables & _VARIABLES) != 1 or any(name.isupper() for name in variables):
        return None
    return rest[0] if len(rest) == 1 else Operation("add", rest)


def _has_constant(node: Node, name: str) -> bool:
    return any(_is_called(term, frozenset((name,))) for term in children(node))


def _is_called(term: Node, names: frozenset[str]) -> bool:
    return isinstance(term, Symbol) and term.name.partition("_")[0] in names


def _is_constant(difference: Node, names: frozenset[str]) -> bool:
    """Whether a formula has one real value wherever it has any."""
    first: Scalar | None = None
    seen = total = 0
    for point, _ in points(variable_kinds(names, (difference,)), (difference, difference)):
        total += 1
        try:
            value = evaluated(difference, point, PRECISIONS[-1])
        except NoValue:
            continue
        if not is_real(value):
            continue
        seen += 1
        first = value if first is None else first
        if not _agrees(first, value):
            return False
    return seen * 3 > total


def _agrees(first: Scalar, second: Scalar) -> bool:
    from flint import arb, ctx

    with ctx.workprec(PRECISIONS[-1]):
        gap = (ball(first) - ball(second)).abs_upper()
        size = arb(1) + ball(first).abs_upper()
        return bool(gap < size * arb(2) ** -_TOLERANCE_BITS)
