"""Whether two lists with dots are the same, and whether one is the same as a list without dots."""

from __future__ import annotations

from collections.abc import Sequence

from realrl.verifier.amounts import whole_number
from realrl.verifier.items import same_items
from realrl.verifier.members import Same, in_order
from realrl.verifier.nodes import whole
from realrl.verifier.tree import Formula, Items, Progression, Reading

MAX_STEPS = 199
"""The largest number of steps from the first member to the last of a list that is written out."""


def same_progression(answer: Progression, solution: Progression, same: Same) -> bool:
    """Whether two lists with dots are written alike, or have the same members."""
    if answer.kind != solution.kind:
        return False
    if _written_alike(answer, solution, same):
        return True
    mine, wanted = _members(answer), _members(solution)
    return None not in (mine, wanted) and in_order(mine, wanted, same)


def _written_alike(answer: Progression, solution: Progression, same: Same) -> bool:
    if (len(answer.first), len(answer.last)) != (len(solution.first), len(solution.last)):
        return False
    return all(map(same, answer.first, solution.first)) and all(map(same, answer.last, solution.last))


def progression_for_items(answer: Progression, solution: Items, same: Same) -> bool:
    """Whether a list with dots has the members of a solution."""
    members = _members(answer)
    return members is not None and same_items(Items(answer.kind, members), solution, same)


def items_for_progression(answer: Items, solution: Progression, same: Same) -> bool:
    """Whether an answer has the members of a list with dots."""
    members = _members(solution)
    return members is not None and same_items(answer, Items(solution.kind, members), same)


def _members(progression: Progression) -> tuple[Reading, ...] | None:
    """All members of a progression of whole numbers with one difference; None of any other."""
    numbers = [whole_number(item) for item in (*progression.first, *progression.last)]
    if len(progression.first) < 2 or len(progression.last) != 1 or None in numbers:
        return None
    step = _difference(numbers[:-1])
    if not step or (numbers[-1] - numbers[0]) % step:
        return None
    if not 0 < (numbers[-1] - numbers[0]) // step <= MAX_STEPS:
        return None
    members = range(numbers[0], numbers[-1] + (1 if step > 0 else -1), step)
    return tuple((Formula(whole(number)),) for number in members)


def _difference(numbers: Sequence[int]) -> int | None:
    """The difference between neighbours, where it is one."""
    differences = {after - before for before, after in zip(numbers, numbers[1:])}
    return differences.pop() if len(differences) == 1 else None
