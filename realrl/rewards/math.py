"""Grades answers to mathematical questions.

Equal strings and whole numbers are compared here, everything else in a pool of processes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from realrl.base.progress import Progress, counted, no_progress
from realrl.rewards.budget import Budget, seconds_for
from realrl.rewards.pool import judge_in_pool
from realrl.rewards.verdict import Checked, Verdict
from realrl.verifier.forms import ANYWHERE, AnswerForm
from realrl.verifier.leniency import USUAL, Leniency
from realrl.verifier.limits import MAX_CHARS
from realrl.verifier.solution import solution_answer
from realrl.verifier.strict import find_in_form

logger = logging.getLogger(__name__)

Judge = Callable[[str, str], Verdict]

_BREAKS = (RecursionError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
"""Unforeseen errors that a text can cause. RuntimeError is excluded: it reports that no child starts."""

_WHOLE_NUMBER = re.compile(r"(-?(?:[1-9]\d{0,2}(?:,\d{3}){1,12}|\d{1,100}))(?:\.0*)?")


def check(
    text: str,
    solutions: Sequence[str],
    judge: Judge = judge_in_pool,
    *,
    form: AnswerForm = ANYWHERE,
    ended: bool = True,
) -> Checked:
    """Compare the answer in `text` with `solutions`, up to the first that it matches.

    `judge` compares an answer and a solution that are neither equal strings nor both whole numbers. `form`
    says where the text must have its answer, and `ended` whether the text ended by itself.

    Raises:
        RuntimeError: the judge's processes do not start.
    """
    answer = find_in_form(text, form, ended=ended).answer
    if answer is None:
        return Checked(Verdict.NO_ANSWER, None)
    verdicts = [verdict for _, verdict in compared(answer, solutions, judge)]
    return Checked(verdict_of(verdicts), answer)


def compared(answer: str, solutions: Sequence[str], judge: Judge) -> Iterator[tuple[str, Verdict]]:
    """Yield each solution and its verdict, up to the first that the answer matches."""
    for solution in solutions:
        verdict = _compared(answer, solution, judge)
        yield solution, verdict
        if verdict is Verdict.CORRECT:
            return


def verdict_of(verdicts: Collection[Verdict]) -> Verdict:
    """Return the verdict of an answer from its verdicts with several solutions.

    A timeout or an error wins over `WRONG`: that solution might have matched.
    """
    for verdict in (Verdict.CORRECT, Verdict.TIMEOUT, Verdict.ERROR):
        if verdict in verdicts:
            return verdict
    return Verdict.WRONG


def grade(
    text: str,
    solutions: Sequence[str],
    judge: Judge = judge_in_pool,
    *,
    form: AnswerForm = ANYWHERE,
    ended: bool = True,
) -> Verdict:
    """Return the verdict of `check`."""
    return check(text, solutions, judge, form=form, ended=ended).verdict


def check_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    judge: Judge | None = None,
    *,
    num_threads: int = 4,
    progress: Progress = no_progress,
    budget_s: float | None = None,
    leniency: Leniency = USUAL,
    form: AnswerForm = ANYWHERE,
    ended: Sequence[bool] | None = None,
) -> list[Checked]:
    """Run `check` on many texts in parallel threads, and return the results in the texts' order.

    `judge` replaces this process's pool of children, which compares by `leniency`.

    `budget_s` bounds the seconds of judging, summed over the threads (None: by the number of texts). Once it
    is spent, every further comparison is `TIMEOUT` at once. `ended` says of each text whether it ended by
    itself (None: all did).

    Raises:
        ValueError: `texts`, `solutions` and `ended` differ in length.
        RuntimeError: the judge's processes do not start.
    """
    if budget_s is None:
        budget_s = seconds_for(len(texts))
    budget = Budget(budget_s)
    bounded = budget.bounded(judge or partial(judge_in_pool, leniency=leniency))

    def check_one(case: tuple[str, Sequence[str], bool]) -> Checked:
        text, its_solutions, has_ended = case
        return check(text, its_solutions, bounded, form=form, ended=has_ended)

    with ThreadPoolExecutor(num_threads) as threads:
        cases = zip(texts, solutions, ended or [True] * len(texts), strict=True)
        results = threads.map(check_one, cases)
        checked = list(counted(results, len(texts), progress))
    budget.report(len(texts))
    return checked


def grade_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    progress: Progress = no_progress,
    budget_s: float | None = None,
) -> list[Verdict]:
    """Return the verdicts of `check_all`."""
    results = check_all(texts, solutions, progress=progress, budget_s=budget_s)
    return [checked.verdict for checked in results]


def _compared(answer: str, solution: str, judge: Judge) -> Verdict:
    """Return the verdict of one comparison; an unforeseen error affects only this comparison."""
    try:
        return _compare(answer, solution_answer(solution), judge)
    except _BREAKS as error:
        logger.warning("comparing %.200r with %.200r: %s: %s", answer, solution, type(error).__name__, error)
        return Verdict.ERROR


def _compare(answer: str, solution: str, judge: Judge) -> Verdict:
    """Compare an answer with a solution's own answer; the judge gets only what is not decided here."""
    left = answer.strip()
    right = solution.strip()
    if left == right:
        return Verdict.CORRECT
    if max(len(left), len(right)) > MAX_CHARS:
        return Verdict.WRONG
    left_number = _whole_number(left)
    right_number = _whole_number(right)
    if left_number is None or right_number is None:
        return judge(left, right)
    return Verdict.CORRECT if left_number == right_number else Verdict.WRONG


def _whole_number(text: str) -> int | None:
    """Return the value of a whole number, also with commas or zero decimals; None for another text."""
    match = _WHOLE_NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = match[1].replace(",", "")
    return int(digits)
