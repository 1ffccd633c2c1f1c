"""Decides whether an answer's formula counts as a solution's, by equality or by one of several rules."""

from __future__ import annotations

from realrl.verifier import lexicon
from realrl.verifier.equality import equal
from realrl.verifier.families import same_up_to_constant, same_with_other_constants
from realrl.verifier.limits import ANSWER_DIGITS, SOLUTION_DIGITS
from realrl.verifier.nodes import Constant, Node, Operation, Symbol, free_symbols, substituted, walk
from realrl.verifier.rounding import stands_for

_ARITHMETIC = frozenset(("add", "negative", "multiply", "divide", "degrees"))
"""The operations in which a sign of degrees may be left out."""


def same_formula(answer: Node, solution: Node) -> bool:
    """Return whether two formulas are equal, or equal by one of the rules for what may be left out."""
    if equal(answer, solution):
        return True
    if same_up_to_constant(answer, solution):
        return True
    if stands_for(answer, solution, ANSWER_DIGITS):
        return True
    if stands_for(solution, answer, SOLUTION_DIGITS):
        return True
    if same_by_engineers_j(answer, solution):
        return True
    if same_angles(answer, solution):
        return True
    if same_with_other_constants(answer, solution):
        return True
    return same_without_degrees(answer, solution)


def same_angles(answer: Node, solution: Node) -> bool:
    r"""Return whether two families of angles differ only in the name of a whole number: `n\pi` for `k\pi`."""
    mine = _counter(answer)
    wanted = _counter(solution)
    if mine is None or wanted is None or mine == wanted:
        return False
    if not (_is_angle(answer) and _is_angle(solution)):
        return False
    renamed = substituted(answer, {mine: Symbol(wanted)})
    return equal(renamed, solution)


def _counter(node: Node) -> str | None:
    """Return the only variable of a formula if it names a whole number by custom; else None."""
    names = free_symbols(node)
    if len(names) != 1:
        return None
    if not names <= lexicon.COUNTERS:
        return None
    (name,) = names
    return name


def same_without_degrees(answer: Node, solution: Node) -> bool:
    r"""Return whether one side only leaves out the sign of degrees: `90 - x` for `90^\circ - x`."""
    names = free_symbols(solution)
    if not names or names != free_symbols(answer):
        return False
    if _is_marked(answer) == _is_marked(solution):
        return False
    if not (_is_arithmetic(answer) and _is_arithmetic(solution)):
        return False
    return equal(_without_degrees(answer), _without_degrees(solution))


def _is_arithmetic(node: Node) -> bool:
    """Return whether a formula has only operations in which a sign of degrees may be left out."""
    return _operations(node) <= _ARITHMETIC


def _is_marked(node: Node) -> bool:
    """Return whether a formula has a sign of degrees."""
    return "degrees" in _operations(node)


def _operations(node: Node) -> set[str]:
    """Return the names of the operations in a formula."""
    return {inner.name for inner in walk(node) if isinstance(inner, Operation)}


def _without_degrees(node: Node) -> Node:
    if not isinstance(node, Operation):
        return node
    operands = tuple(map(_without_degrees, node.operands))
    if node.name == "degrees":
        return operands[0]
    return Operation(node.name, operands)


def _is_angle(node: Node) -> bool:
    """Return whether a formula contains pi or a sign of degrees."""
    if _is_marked(node):
        return True
    return Constant("pi") in walk(node)


def same_by_engineers_j(answer: Node, solution: Node) -> bool:
    """Return whether an answer is a complex solution with j as the imaginary unit: `3 + 4j` for `3 + 4i`."""
    imaginary_unit = Constant("i")
    if imaginary_unit not in walk(solution):
        return False
    if free_symbols(answer) != {"j"} or free_symbols(solution):
        return False
    renamed = substituted(answer, {"j": imaginary_unit})
    return equal(renamed, solution)
