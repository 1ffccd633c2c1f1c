"""Verdicts with their reasons: what was extracted and from where, how both sides were read, what decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from realrl.rewards.budget import Budget, seconds_for
from realrl.rewards.math import Judge, compared, verdict_of
from realrl.rewards.pool import Reasons, explain_in_pool, judge_in_pool
from realrl.rewards.verdict import Checked, Verdict
from realrl.verifier.extract import Place, find_answer
from realrl.verifier.solution import solution_answer

Explain = Callable[[str, str], Reasons]

_UNDECIDED = {
    Verdict.TIMEOUT: "the comparison had no result in its time",
    Verdict.ERROR: "the comparison broke; the errors say how",
}
_NO_ANSWER = {
    Place.CUT_OFF: "the text is cut off: its thoughts, or an answer tag, never end",
    Place.BOX: "the last box is empty, or never closed",
    Place.PHRASE: "nothing follows the last phrase that announces an answer",
    Place.TAG: "there is no answer in the answer tag",
    Place.VALUE: "there is no box, no phrase that announces an answer, no number and no formula",
}
_NO_TIME = Reasons("", "", "no reasons were looked for: others took all of the time that there is together")


@dataclass(frozen=True)
class Comparison:
    """An answer and one solution."""

    solution: str
    """The solution's own answer."""
    verdict: Verdict
    answer_read: str
    """How the answer was read; empty where nobody knows."""
    solution_read: str
    why: str


@dataclass(frozen=True)
class Explanation:
    """Why a text has its verdict."""

    place: str
    """Where its answer is, or why it has none."""
    comparisons: tuple[Comparison, ...]
    """With each solution up to the first that it matches."""


@dataclass(frozen=True)
class Explained(Checked):
    """A text that was graded, with reasons."""

    explanation: Explanation


def explain(
    text: str,
    solutions: Sequence[str],
    judge: Judge = judge_in_pool,
    reasons: Explain = explain_in_pool,
) -> Explained:
    """Do what `realrl.rewards.math.check` does, and say why.

    The verdict is that of `check`: reasons are asked for after it, and it does not wait for them.
    """
    answer, place = find_answer(text)
    if answer is None:
        return Explained(Verdict.NO_ANSWER, None, Explanation(_NO_ANSWER[place], ()))
    pairs = compared(answer, solutions, judge)
    found = [_explained(answer, solution, verdict, reasons) for solution, verdict in pairs]
    verdict = verdict_of([comparison.verdict for comparison in found])
    return Explained(verdict, answer, Explanation(place.value, tuple(found)))


def _explained(answer: str, solution: str, verdict: Verdict, reasons: Explain) -> Comparison:
    if verdict in _UNDECIDED:
        return Comparison(solution, verdict, "", "", _UNDECIDED[verdict])
    wanted = solution_answer(solution)
    return Comparison(wanted, verdict, *reasons(answer, wanted))


def explain_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    *,
    num_threads: int = 4,
    convert_units: bool = True,
) -> list[Explained]:
    """`explain` many texts, in their order, with the budget of as many verdicts for each of both."""
    judging, explaining = (Budget(seconds_for(len(texts))) for _ in range(2))
    judge_one, explain_one = judge_in_pool, explain_in_pool
    if not convert_units:
        judge_one = partial(judge_in_pool, convert_units=False)
        explain_one = partial(explain_in_pool, convert_units=False)
    judge = judging.bounded(judge_one)

    def reasons(answer: str, solution: str) -> Reasons:
        return explaining.spend(lambda: explain_one(answer, solution), instead=_NO_TIME)

    with ThreadPoolExecutor(num_threads) as threads:
        pairs = zip(texts, solutions, strict=True)
        found = list(threads.map(lambda pair: explain(*pair, judge, reasons), pairs))
    judging.report(len(texts))
    return found
