"""Whether two statements about names are the same, and whether a value alone says as much as a statement.

A name may be left out where it is that of one thing: `3` for `x = 3`.
"""

from __future__ import annotations

from realrl.verifier import sets
from realrl.verifier.lexicon import WHOLE_NAMES
from realrl.verifier.members import Same, in_any_order, in_order
from realrl.verifier.names import is_variable, without_subscript
from realrl.verifier.nodes import whole
from realrl.verifier.tree import Congruence, Formula, Items, Named, Reading, RealSet, Value

_NAMES_OF_A_GRAPH = frozenset(("y", "f ( x )"))
"""Two names of one thing: a function that is asked for as `f(x)` is often given as `y`, and the other way."""


def assignments(value: Value) -> dict[str, Reading] | None:
    """The value of each name, where a value says nothing but the values of names; else None."""
    if isinstance(value, Named):
        return _tuple_assignments(value)
    if not isinstance(value, Items) or value.kind not in (",", "or"):
        return None
    found: dict[str, Reading] = {}
    for item in value.items:
        if not isinstance(item[0], Named) or item[0].name in found:
            return None
        found[item[0].name] = item[0].value
    return found


def _tuple_assignments(value: Named) -> dict[str, Reading] | None:
    r"""The value of each name in `(x, y) = (1, 2)`; None of any other statement."""
    inner = value.value[0]
    if not (value.name.startswith("( ") and isinstance(inner, Items) and inner.kind == "()"):
        return None
    names = [name.strip() for name in value.name.strip("() ").split(",")]
    if len(names) != len(inner.items) or len(set(names)) != len(names):
        return None
    return dict(zip(names, inner.items, strict=True))


def same_assignments(answer: Value, wanted: dict[str, Reading], same: Same) -> bool:
    """Whether an answer has the value of each name that is wanted, by its name or in the solution's order."""
    mine = assignments(answer)
    if mine is not None:
        return mine.keys() == wanted.keys() and all(same(mine[name], wanted[name]) for name in wanted)
    if not isinstance(answer, Items) or answer.kind not in (",", "()") or _has_names(answer):
        return False
    return in_order(answer.items, tuple(wanted.values()), same)


def _has_names(items: Items) -> bool:
    return any(isinstance(item[0], Named) for item in items.items)


def same_named(answer: Named, solution: Named, same: Same) -> bool:
    """Whether two statements give one name the same value."""
    are_alike = isinstance(answer.value[0], Congruence) == isinstance(solution.value[0], Congruence)
    return are_alike and names_agree(answer.name, solution.name) and same(answer.value, solution.value)


def named_for_value(answer: Named, solution: Value, same: Same) -> bool:
    """Whether an answer says a solution's value of a name that may be left out."""
    return answer.may_be_dropped and same(answer.value, (solution,))


def value_for_named(answer: Value, solution: Named, same: Same) -> bool:
    """Whether an answer is the value of a solution's name, which may be left out."""
    if _are_whole_numbers(answer, solution, same):
        return True
    return solution.may_be_dropped and solution.is_one_thing and same((answer,), solution.value)


def _are_whole_numbers(answer: Value, solution: Named, same: Same) -> bool:
    r"""Whether an answer has all numbers of `-2 \le n \le 2`, where n is a whole number by its name."""
    if solution.name not in WHOLE_NAMES or not isinstance(solution.value[0], RealSet):
        return False
    numbers = sets.whole_numbers(solution.value[0])
    if not numbers or not isinstance(answer, Items) or answer.kind not in (",", "{}"):
        return False
    wanted = tuple((Formula(whole(number)),) for number in numbers)
    return in_any_order(answer.items, wanted, same)


def names_agree(answer: str, solution: str) -> bool:
    """Whether two names are the same, perhaps with an index or an argument that only one has."""
    if answer == solution or {answer, solution} == _NAMES_OF_A_GRAPH:
        return True
    if is_variable(solution) and without_subscript(answer) == solution:
        return True
    return _without_argument(answer) == solution or answer == _without_argument(solution)


def _without_argument(name: str) -> str:
    """`f` of `f ( x )`; a name without such an argument as it is."""
    function, _, argument = name.partition(" ( ")
    return function if len(argument) == 3 and argument.endswith(" )") else name
