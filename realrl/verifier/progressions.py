"""Compares lists with dots with each other, and with lists without dots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from realrl.verifier.amounts import whole_number
from realrl.verifier.items import same_items
from realrl.verifier.members import Same, in_order
from realrl.verifier.nodes import whole
from realrl.verifier.tree import Formula, Items, Progression, Reading

MAX_STEPS = 199
"""The largest number of steps from the first member to the last of a list that is written out."""


def same_progression(answer: Progression, solution: Progression, same: Same) -> bool:
    """Return whether two lists with dots are written alike, or have the same members."""
    if answer.kind != solution.kind:
        return False
    if _written_alike(answer, solution, same):
        return True
    mine = _members(answer)
    wanted = _members(solution)
    if mine is None or wanted is None:
        return False
    return in_order(mine, wanted, same)


def _written_alike(answer: Progression, solution: Progression, same: Same) -> bool:
    if len(answer.first) != len(solution.first):
        return False
    if len(answer.last) != len(solution.last):
        return False
    if not all(map(same, answer.first, solution.first)):
        return False
    return all(map(same, answer.last, solution.last))


def progression_for_items(answer: Progression, solution: Items, same: Same) -> bool:
    """Return whether a list with dots has the members of a solution."""
    members = _members(answer)
    if members is None:
        return False
    return same_items(Items(answer.kind, members), solution, same)


def items_for_progression(answer: Items, solution: Progression, same: Same) -> bool:
    """Return whether an answer has the members of a list with dots."""
    members = _members(solution)
    if members is None:
        return False
    return same_items(answer, Items(solution.kind, members), same)


def _members(progression: Progression) -> tuple[Reading, ...] | None:
    """Return all members of a progression of whole numbers with one difference; None for any other."""
    if len(progression.first) < 2:
        return None
    if len(progression.last) != 1:
        return None
    numbers = _whole_numbers(progression.first)
    end = whole_number(progression.last[0])
    if numbers is None or end is None:
        return None
    step = _difference(numbers)
    if not step:
        return None
    start = numbers[0]
    num_steps, remainder = divmod(end - start, step)
    if remainder or not 0 < num_steps <= MAX_STEPS:
        return None
    members: list[Reading] = []
    for place in range(num_steps + 1):
        number = whole(start + place * step)
        members.append((Formula(number),))
    return tuple(members)


def _whole_numbers(items: Sequence[Reading]) -> list[int] | None:
    """Return the whole numbers that readings usually mean; None if one means anything else."""
    numbers: list[int] = []
    for item in items:
        number = whole_number(item)
        if number is None:
            return None
        numbers.append(number)
    return numbers


def _difference(numbers: Sequence[int]) -> int | None:
    """Return the difference between neighbours, if all have the same one."""
    differences = {after - before for before, after in pairwise(numbers)}
    if len(differences) == 1:
        return differences.pop()
    return None
