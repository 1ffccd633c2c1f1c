"""Guards over single answers: one that is right for many problems, and one whose verdict changes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import islice, product

from realrl.recipes.parts.guards import Finding, Graded, Recent
from realrl.recipes.parts.symptoms import shortened
from realrl.rewards.pool import judge_in_pool
from realrl.rewards.verdict import Verdict

MANY = 3
"""Solutions that differ, from which an answer that is right for all of them is an alarm. An honest answer has
two at times: `50%` is right for 50 and for 0.5."""
_MOST_ANSWERS = 4096
_MOST_GOLDS = 16
"""Of one answer, that are compared with each other."""
_MOST_SOLUTIONS = 4
"""Of a row; one with more is left out."""
_MOST_PAIRS = 16_384
_PANEL = 5
"""Solutions that right answers of other problems are judged against."""
_MOST_OF_STEP = 8
"""Right answers that are judged against the panel in a step: all of it takes less than half a second."""
_MOST_OF_SHAPE = 2
"""Answers of one shape, alike but for their numbers, that are judged against the panel."""

_DECISIONS = frozenset((Verdict.CORRECT, Verdict.WRONG))
_DECIDED = frozenset(verdict.value for verdict in _DECISIONS)
_OF_DECIDED = "a verdict depends on both texts alone; please report this with them"
_OF_UNDECIDED = "was the machine too busy for the check's deadline, or out of memory? logs/ has the cause"

_NUMBER = re.compile(r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_PLAIN_NUMBER = re.compile(rf"\s*\$?\s*{_NUMBER.pattern}\s*\$?\s*")

Gold = tuple[str, ...]
"""A row's solutions."""


@functools.lru_cache(maxsize=4096)
def are_same(first: str, second: str) -> bool:
    """Whether two solutions may be one value: unless the verifier says in both orders that they are not."""
    if judge_in_pool(first, second) is not Verdict.WRONG:
        return True
    return judge_in_pool(second, first) is not Verdict.WRONG


class UniversalAnswers:
    """Finds an answer that is right for solutions of which none is another."""

    def __init__(self, same: Callable[[str, str], bool] = are_same) -> None:
        """`same` compares two solutions where they are not both plain numbers: those are compared here, so
        that a verifier that takes everything for equal is found, too.
        """
        self._same = same
        self._golds: Recent[list[Gold]] = Recent(_MOST_ANSWERS)
        """By answer: solutions that it was right for."""

    def look(self, step: int, graded: Sequence[Graded]) -> Iterator[Finding]:
        """Take in a step, and return what is wrong."""
        for response in graded:
            if response.verdict == Verdict.CORRECT and response.answer and self._is_usable(response):
                yield from self._look_at("".join(response.answer.split()), response.solutions)

    def _is_usable(self, response: Graded) -> bool:
        return 0 < len(response.solutions) <= _MOST_SOLUTIONS

    def _look_at(self, answer: str, gold: Gold) -> Iterator[Finding]:
        golds = self._golds.get((answer,), [])
        if gold not in golds and len(golds) < _MOST_GOLDS:
            golds.append(gold)
        if len(golds) < MANY:
            return
        different = self._different(golds)
        if len(different) >= MANY:
            shown = ", ".join(shortened(gold[0]) for gold in different)
            yield Finding(
                answer[:1000],
                f"the answer {shortened(answer)} was right for problems whose solutions differ, as {shown}:"
                " the policy will learn it and nothing else; look at its responses, and at what"
                " `realrl grade --explain` says of them",
            )

    def _different(self, golds: Sequence[Gold]) -> list[Gold]:
        """Golds of which each differs from all others; no more than are needed."""
        found: list[Gold] = []
        for gold in golds:
            if len(found) < MANY and all(self._differ(gold, other) for other in found):
                found.append(gold)
        return found

    def _differ(self, first: Gold, second: Gold) -> bool:
        pairs = product(first, second)
        return not any(self._may_be_same(*pair) for pair in pairs)

    def _may_be_same(self, first: str, second: str) -> bool:
        """Whether one answer may be right for both: the same value, or the same numbers of other things, as
        `3 cm` and `3 m`, which are both `3` to who leaves the unit out.
        """
        if "".join(first.split()) == "".join(second.split()):
            return True
        mine = _numbers(first)
        other = _numbers(second)
        if mine and mine == other:
            # Of `2x` and `x^2` the number says too little, of `2 cm` and `2 m` all that an answer needs.
            if len(mine) > 1:
                return True
            if self._is_number_enough(first) and self._is_number_enough(second):
                return True
        if _PLAIN_NUMBER.fullmatch(first) and _PLAIN_NUMBER.fullmatch(second):
            return False
        return self._same(first, second)

    def _is_number_enough(self, solution: str) -> bool:
        number = _NUMBER.search(solution)
        assert number is not None, "it was found to have a number"
        return self._same(number.group(), solution)


class _Undecided(Exception):
    """A comparison took too long, or broke: the rest of a step is left alone."""


class RightElsewhere:
    """Finds an answer that is right for the solutions of other problems as well.

    Some right answers are judged against a panel: solutions that are plain numbers, no two of one value. So
    answers that are all written anew, as `5^{5^∞} + 17` with ever another number, are found.
    """

    def __init__(self, judge: Callable[[str, str], Verdict] = judge_in_pool) -> None:
        self._judge = judge
        self._panel: dict[Fraction, str] = {}
        self._judged: Recent[list[str]] = Recent(_MOST_ANSWERS)
        """By shape: the answers of that shape that were judged."""

    def look(self, step: int, graded: Sequence[Graded]) -> Iterator[Finding]:
        """Take in a step, and return what is wrong."""
        for response in graded:
            self._extend_panel(response.solutions)
        right = (response.answer for response in graded if response.verdict == Verdict.CORRECT)
        to_be_judged = (answer for answer in right if answer and self._is_to_be_judged(answer))
        for answer in islice(to_be_judged, _MOST_OF_STEP):
            try:
                yield from self._look_at(answer)
            except _Undecided:
                return

    def _extend_panel(self, solutions: Gold) -> None:
        if len(self._panel) >= _PANEL or len(solutions) != 1:
            return
        (solution,) = solutions
        if _PLAIN_NUMBER.fullmatch(solution):
            (value,) = _numbers(solution)
            self._panel.setdefault(value, solution)

    def _is_to_be_judged(self, answer: str) -> bool:
        """Whether an answer is no plain number, and one of the first of its shape."""
        if len(self._panel) < MANY or _PLAIN_NUMBER.fullmatch(answer):
            return False
        shape = _NUMBER.sub("0", "".join(answer.split()))
        judged = self._judged.get((shape,), [])
        if answer in judged or len(judged) >= _MOST_OF_SHAPE:
            return False
        judged.append(answer)
        return True

    def _look_at(self, answer: str) -> Iterator[Finding]:
        right: list[str] = []
        for solution in self._panel.values():
            verdict = self._judge(answer, solution)
            if verdict not in _DECISIONS:
                raise _Undecided
            if verdict is Verdict.CORRECT:
                right.append(solution)
        if len(right) >= MANY:
            shown = ", ".join(map(shortened, right[:MANY]))
            yield Finding(
                answer[:1000],
                f"the answer {shortened(answer)} is right for solutions of other problems as well, as"
                f" {shown}: the policy will learn its kind and nothing else; look at its responses, and"
                " at what `realrl grade --explain` says of them",
            )


def _numbers(text: str) -> frozenset[Fraction]:
    found = (number.replace(",", "") for number in _NUMBER.findall(text))
    return frozenset(map(Fraction, found))


class ChangingVerdicts:
    """Finds an answer to the same solutions, or row, that has another verdict than it had before."""

    def __init__(self, *, by_row: bool = False, with_truncated: bool = True) -> None:
        """`by_row`: a verdict depends on the row, rather than on its solutions. Truncated responses are left
        out where their verdicts are not about their answers.
        """
        self._by_row, self._with_truncated = by_row, with_truncated
        self._first: Recent[tuple[str, int]] = Recent(_MOST_PAIRS)
        """By answer and solutions: the first verdict, and its step."""

    def look(self, step: int, graded: Sequence[Graded]) -> Iterator[Finding]:
        """Take in a step, and return what is wrong."""
        for response in graded:
            answer = response.answer
            if answer and (response.ended or self._with_truncated):
                yield from self._look_at(step, response, answer)

    def _look_at(self, step: int, response: Graded, answer: str) -> Iterator[Finding]:
        asked = (str(response.row),) if self._by_row else response.solutions
        verdict = response.verdict
        now = (verdict, step)
        first, first_step = self._first.get((answer, *asked), now)
        if first == verdict:
            return
        is_decided = {first, verdict} <= _DECIDED
        shown = shortened(response.solutions[0]) if response.solutions else f"row {response.row}"
        yield Finding(
            "decided" if is_decided else "undecided",
            f"the answer {shortened(answer)} to {shown} was `{first}` in step {first_step}, and is"
            f" `{verdict}` now: {_OF_DECIDED if is_decided else _OF_UNDECIDED}",
        )
