"""Compares statements about names with each other and with values alone.

A name may be omitted if it is the name of one thing: `3` for `x = 3`.
"""

from __future__ import annotations

import re

from realrl.verifier import sets
from realrl.verifier.lexicon import WHOLE_NAMES
from realrl.verifier.members import Same, in_any_order, in_order
from realrl.verifier.names import is_variable, without_subscript
from realrl.verifier.nodes import Symbol, free_symbols, substituted, whole
from realrl.verifier.tree import Congruence, Formula, Items, Named, Reading, RealSet, Value

_ARGUMENT = re.compile(r"(?P<function>[A-Za-z]) \( (?P<letter>[nmkstuxyz]) \)")
"""A function of one argument whose letter is a variable by custom; `f(a)` and `f(b)` may be two values."""
_NAMES_OF_A_GRAPH = frozenset(("y", "f ( x )"))
"""Two names of one thing: a function is often `y` in one text and `f(x)` in the other."""


def assignments(value: Value) -> dict[str, Reading] | None:
    """Return the value of each name, if a value says only the values of names; else None."""
    if isinstance(value, Named):
        return _tuple_assignments(value)
    if not isinstance(value, Items):
        return None
    if value.kind not in (",", "or"):
        return None
    found: dict[str, Reading] = {}
    for item in value.items:
        statement = item[0]
        if not isinstance(statement, Named) or statement.name in found:
            return None
        found[statement.name] = statement.value
    return found


def _tuple_assignments(value: Named) -> dict[str, Reading] | None:
    r"""Return the value of each name in `(x, y) = (1, 2)`; None for any other statement."""
    inner = value.value[0]
    if not isinstance(inner, Items) or inner.kind != "()":
        return None
    if not value.name.startswith("( "):
        return None
    without_brackets = value.name.strip("() ")
    names = [name.strip() for name in without_brackets.split(",")]
    is_repeated = len(set(names)) != len(names)
    if is_repeated or len(names) != len(inner.items):
        return None
    return dict(zip(names, inner.items, strict=True))


def same_assignments(answer: Value, wanted: dict[str, Reading], same: Same) -> bool:
    """Return whether an answer has the wanted value of each name, by name or in the solution's order."""
    mine = assignments(answer)
    if mine is not None:
        if mine.keys() != wanted.keys():
            return False
        return all(same(mine[name], wanted[name]) for name in wanted)
    if not isinstance(answer, Items):
        return False
    if answer.kind not in (",", "()"):
        return False
    if _has_names(answer):
        return False
    return in_order(answer.items, tuple(wanted.values()), same)


def _has_names(items: Items) -> bool:
    return any(isinstance(item[0], Named) for item in items.items)


def same_named(answer: Named, solution: Named, same: Same) -> bool:
    """Return whether two statements give one name the same value."""
    is_congruence = isinstance(answer.value[0], Congruence)
    if is_congruence != isinstance(solution.value[0], Congruence):
        return False
    if names_agree(answer.name, solution.name):
        return same(answer.value, solution.value)
    renamed = _with_argument_of(answer, solution)
    return renamed is not None and same(renamed, solution.value)


def _with_argument_of(answer: Named, solution: Named) -> Reading | None:
    """Return the value of `f(t) = t^2` as that of `f(x) = x^2`, whose argument has another letter.

    None if the names differ in more than the letter of an argument, or a value is no formula.
    """
    mine = _ARGUMENT.fullmatch(answer.name)
    wanted = _ARGUMENT.fullmatch(solution.name)
    if mine is None or wanted is None or mine["function"] != wanted["function"]:
        return None
    value = answer.value[0]
    if not isinstance(value, Formula):
        return None
    letter = wanted["letter"]
    # A value that already has the letter means something else by it.
    if letter in free_symbols(value.node):
        return None
    return (Formula(substituted(value.node, {mine["letter"]: Symbol(letter)})),)


def named_for_value(answer: Named, solution: Value, same: Same) -> bool:
    """Return whether an answer gives a solution's value to a name that may be omitted."""
    if not answer.may_be_dropped:
        return False
    return same(answer.value, (solution,))


def value_for_named(answer: Value, solution: Named, same: Same) -> bool:
    """Return whether an answer is the value of a solution's name, which may be omitted."""
    if _are_whole_numbers(answer, solution, same):
        return True
    return solution.may_be_dropped and solution.is_one_thing and same((answer,), solution.value)


def _are_whole_numbers(answer: Value, solution: Named, same: Same) -> bool:
    r"""Return whether an answer has all numbers of `-2 \le n \le 2`, where n is whole by its name."""
    if solution.name not in WHOLE_NAMES:
        return False
    if not isinstance(solution.value[0], RealSet):
        return False
    numbers = sets.whole_numbers(solution.value[0])
    if not numbers:
        return False
    if not isinstance(answer, Items):
        return False
    if answer.kind not in (",", "{}"):
        return False
    wanted = [(Formula(whole(number)),) for number in numbers]
    return in_any_order(answer.items, wanted, same)


def names_agree(answer: str, solution: str) -> bool:
    """Return whether two names are the same, perhaps with an index or an argument that only one has."""
    if answer == solution or {answer, solution} == _NAMES_OF_A_GRAPH:
        return True
    if is_variable(solution) and without_subscript(answer) == solution:
        return True
    if _without_argument(answer) == solution:
        return True
    return answer == _without_argument(solution)


def _without_argument(name: str) -> str:
    """Return `f` for `f ( x )`, and a name without an argument of one letter as it is."""
    function, _, argument = name.partition(" ( ")
    is_one_letter = len(argument) == 3 and argument.endswith(" )")
    return function if is_one_letter else name
