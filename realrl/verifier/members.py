"""Compares the members of two collections, in order or in any order.

The caller passes `same`, which compares members: a member may be of any kind, a collection too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from realrl.verifier.tree import Items, Reading

Same = Callable[[Reading, Reading], bool]
"""Returns whether a meaning of an answer is a meaning of a solution."""


def in_order(answers: Sequence[Reading], solutions: Sequence[Reading], same: Same) -> bool:
    """Return whether members are the same one by one, and there is at least one."""
    if not answers or len(answers) != len(solutions):
        return False
    return all(map(same, answers, solutions))


def in_any_order(answers: Sequence[Reading], solutions: Sequence[Reading], same: Same) -> bool:
    """Return whether each member of a solution is one of an answer, which has no more."""
    left = list(solutions)
    for answer in answers:
        place = _place_of_same(answer, left, same)
        if place is None:
            return False
        del left[place]
    return not left


def _place_of_same(answer: Reading, solutions: Sequence[Reading], same: Same) -> int | None:
    for place, solution in enumerate(solutions):
        if same(answer, solution):
            return place
    return None


def as_sets(answers: Sequence[Reading], solutions: Sequence[Reading], same: Same) -> bool:
    """Return whether two sets have the same members, each written once or more often."""

    def is_wanted(mine: Reading) -> bool:
        return any(_same_member(mine, wanted, same) for wanted in solutions)

    def is_found(wanted: Reading) -> bool:
        return any(_same_member(mine, wanted, same) for mine in answers)

    are_wanted = all(map(is_wanted, answers))
    are_found = all(map(is_found, solutions))
    return are_wanted and are_found


def _same_member(mine: Reading, wanted: Reading, same: Same) -> bool:
    """Return whether two members are the same; a set is no member in the place of its only one."""
    if _is_set(mine) != _is_set(wanted):
        return False
    return same(mine, wanted)


def _is_set(member: Reading) -> bool:
    if not isinstance(member[0], Items):
        return False
    return member[0].kind == "{}"
