"""Grades answers with reasons: the answer and its place, how both sides were read, what decided."""

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
from realrl.verifier.forms import ANYWHERE, AnswerForm
from realrl.verifier.leniency import USUAL, Leniency
from realrl.verifier.solution import solution_answer
from realrl.verifier.strict import find_in_form

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
    Place.NOT_ENDED: "the response did not end by itself, which its form asks for",
    Place.NO_THOUGHT: "the form asks for an answer after the end of a thought, and no thought ends",
    Place.NO_TAG: "the form asks for an answer in <answer> tags, and there are none",
    Place.NO_BOX: "the form asks for a box, and there is none where it counts",
    Place.NO_PHRASE: "the form asks for its phrase before the answer, which is not there where it counts",
    Place.VALUE: "there is no box, no phrase that announces an answer, no number and no formula",
}
_MOST_SHOWN = 200
"""The largest number of characters of an answer that a form rules out."""
_NO_TIME = Reasons("", "", "no reasons were looked for: others took all of the time that there is together")


@dataclass(frozen=True)
class Comparison:
    """The comparison of an answer with one solution."""

    solution: str
    """The solution's own answer."""
    verdict: Verdict
    answer_read: str
    """How the answer was read; empty if unknown."""
    solution_read: str
    """How the solution was read; empty if unknown."""
    why: str
    """Why they are the same or not."""


@dataclass(frozen=True)
class Explanation:
    """The reasons for a text's verdict."""

    place: str
    """Where the answer is in the text, or why there is none."""
    comparisons: tuple[Comparison, ...]
    """One comparison per solution, up to the first match."""


@dataclass(frozen=True)
class Explained(Checked):
    """The result of grading a text, with reasons."""

    explanation: Explanation


def explain(
    text: str,
    solutions: Sequence[str],
    judge: Judge = judge_in_pool,
    reasons: Explain = explain_in_pool,
    *,
    form: AnswerForm = ANYWHERE,
    ended: bool = True,
) -> Explained:
    """Grade a text as `realrl.rewards.math.check` does, and add the reasons.

    The verdict equals that of `check`: the reasons are requested after it and cannot change it.
    """
    answer, place = find_in_form(text, form, ended=ended)
    if answer is None:
        why = _NO_ANSWER[place] + _ruled_out(text, form)
        explanation = Explanation(why, comparisons=())
        return Explained(Verdict.NO_ANSWER, None, explanation)
    comparisons: list[Comparison] = []
    verdicts: list[Verdict] = []
    for solution, verdict in compared(answer, solutions, judge):
        comparison = _explained(answer, solution, verdict, reasons)
        comparisons.append(comparison)
        verdicts.append(verdict)
    explanation = Explanation(place.value, tuple(comparisons))
    verdict = verdict_of(verdicts)
    return Explained(verdict, answer, explanation)


def _ruled_out(text: str, form: AnswerForm) -> str:
    """Return a remark on the answer that a text has without its form; an empty text if there is none."""
    if form == ANYWHERE:
        return ""
    answer, place = find_answer(text)
    if answer is None:
        return ""
    return f"; without the form, the answer would be {answer[:_MOST_SHOWN]}, from {place.value}"


def _explained(answer: str, solution: str, verdict: Verdict, reasons: Explain) -> Comparison:
    """Return a comparison with its reasons; an undecided one has nothing to explain."""
    if verdict in _UNDECIDED:
        return Comparison(solution, verdict, "", "", _UNDECIDED[verdict])
    wanted = solution_answer(solution)
    found = reasons(answer, wanted)
    return Comparison(wanted, verdict, found.answer, found.solution, found.why)


def explain_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    *,
    num_threads: int = 4,
    leniency: Leniency = USUAL,
    form: AnswerForm = ANYWHERE,
    ended: Sequence[bool] | None = None,
) -> list[Explained]:
    """Run `explain` on many texts in parallel threads, and return the results in the texts' order.

    Judging and explaining have a budget each, as large as that of `check_all`.

    Raises:
        ValueError: `texts`, `solutions` and `ended` differ in length.
    """
    seconds = seconds_for(len(texts))
    judging = Budget(seconds)
    explaining = Budget(seconds)
    explain_one = partial(explain_in_pool, leniency=leniency)
    judge = judging.bounded(partial(judge_in_pool, leniency=leniency))

    def reasons(answer: str, solution: str) -> Reasons:
        return explaining.spend(lambda: explain_one(answer, solution), instead=_NO_TIME)

    def explain_text(case: tuple[str, Sequence[str], bool]) -> Explained:
        text, its_solutions, has_ended = case
        return explain(text, its_solutions, judge, reasons, form=form, ended=has_ended)

    with ThreadPoolExecutor(num_threads) as threads:
        cases = zip(texts, solutions, ended or [True] * len(texts), strict=True)
        explained = list(threads.map(explain_text, cases))
    judging.report(len(texts))
    return explained
