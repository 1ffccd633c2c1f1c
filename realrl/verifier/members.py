"""Whether the members of two collections are the same, in order or in any order.

Members are compared by `same`, which the caller passes: a member may be of any kind, a collection too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realrl.verifier.tree import Items, Reading

Same = Callable[[Reading, Reading], bool]
"""Whether one meaning of an answer is one of a solution."""


def in_order(answers: Sequence[Reading], solutions: Sequence[Reading], same: Same) -> bool:
    """Whether members are the same one by one, of which there is at least one."""
    return len(answers) == len(solutions) > 0 and all(map(same, answers, solutions))


def in_any_order(answers: Sequence[Reading], solutions: Sequence[Reading], same: Same) -> bool:
    """Whether each member of a solution is one of an answer, which has no more."""
    left = list(solutions)
    for answer in answers:
        twin = next((place for place, solution in enumerate(left) if same(answer, solution)), None)
        if twin is None:
            return False
        del left[twin]
    return not left


def as_sets(answers: Sequence[Reading], solutions: Sequence[Reading], same: Same) -> bool:
    """Whether two sets have the same members, each written once or more often."""
    are_wanted = all(any(_same_member(mine, wanted, same) for wanted in solutions) for mine in answers)
    are_found = all(any(_same_member(mine, wanted, same) for mine in answers) for wanted in solutions)
    return are_wanted and are_found


def _same_member(mine: Reading, wanted: Reading, same: Same) -> bool:
    """Whether two members are the same; a set is no member in the place of its only one."""
    return _is_set(mine) == _is_set(wanted) and same(mine, wanted)


def _is_set(member: Reading) -> bool:
    return isinstance(member[0], Items) and member[0].kind == "{}"
