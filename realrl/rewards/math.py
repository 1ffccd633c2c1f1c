"""Grades answers to mathematical questions: strings and numbers here, the rest in a pool of processes."""

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
from realrl.verifier.extract import extract_answer
from realrl.verifier.limits import MAX_CHARS
from realrl.verifier.solution import solution_answer

logger = logging.getLogger(__name__)

Judge = Callable[[str, str], Verdict]

_BREAKS = (RecursionError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
"""What a text can bring about that nobody thought of. Not a RuntimeError: it says that no child starts."""

_WHOLE_NUMBER = re.compile(r"(-?(?:[1-9]\d{0,2}(?:,\d{3}){1,12}|\d{1,100}))(?:\.0*)?")


def check(text: str, solutions: Sequence[str], judge: Judge = judge_in_pool) -> Checked:
    """Compare the answer in `text` with each of `solutions`; one that matches is enough.

    `judge` compares what neither is the same string nor two whole numbers.
    """
    answer = extract_answer(text)
    if answer is None:
        return Checked(Verdict.NO_ANSWER, None)
    verdicts = [verdict for _, verdict in compared(answer, solutions, judge)]
    return Checked(verdict_of(verdicts), answer)


def compared(answer: str, solutions: Sequence[str], judge: Judge) -> Iterator[tuple[str, Verdict]]:
    """Each solution and how the answer compares with it, up to the first that it matches."""
    for solution in solutions:
        verdict = _compared(answer, solution, judge)
        yield solution, verdict
        if verdict is Verdict.CORRECT:
            return


def verdict_of(verdicts: Collection[Verdict]) -> Verdict:
    """The verdict of an answer that was compared with several solutions."""
    severity = (Verdict.CORRECT, Verdict.TIMEOUT, Verdict.ERROR)
    return next((verdict for verdict in severity if verdict in verdicts), Verdict.WRONG)


def grade(text: str, solutions: Sequence[str], judge: Judge = judge_in_pool) -> Verdict:
    """The verdict of `check`."""
    return check(text, solutions, judge).verdict


def check_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    judge: Judge = judge_in_pool,
    *,
    num_threads: int = 4,
    progress: Progress = no_progress,
    budget_s: float | None = None,
    convert_units: bool = True,
) -> list[Checked]:
    """`check` many texts, in their order; slow comparisons do not wait for each other.

    Without `convert_units`, 100 cm are not 1 m.

    Once `budget_s` of judging is spent, summed over the threads, what is left to judge is `TIMEOUT` at once;
    None: by the number of texts.
    """
    budget = Budget(seconds_for(len(texts)) if budget_s is None else budget_s)
    bounded = budget.bounded(judge if convert_units else partial(judge, convert_units=False))
    with ThreadPoolExecutor(num_threads) as threads:
        checked = threads.map(lambda pair: check(*pair, bounded), zip(texts, solutions, strict=True))
        found = list(counted(checked, len(texts), progress))
    budget.report(len(texts))
    return found


def grade_all(
    texts: Sequence[str],
    solutions: Sequence[Sequence[str]],
    progress: Progress = no_progress,
    budget_s: float | None = None,
) -> list[Verdict]:
    """The verdicts of `check_all`."""
    return [checked.verdict for checked in check_all(texts, solutions, progress=progress, budget_s=budget_s)]


def _compared(answer: str, solution: str, judge: Judge) -> Verdict:
    """The verdict of one comparison; one that breaks is an error of that comparison alone."""
    try:
        return _compare(answer, solution_answer(solution), judge)
    except _BREAKS as error:
        logger.warning("comparing %.200r with %.200r: %s: %s", answer, solution, type(error).__name__, error)
        return Verdict.ERROR


def _compare(answer: str, solution: str, judge: Judge) -> Verdict:
    left, right = answer.strip(), solution.strip()
    if left == right:
        return Verdict.CORRECT
    if max(len(left), len(right)) > MAX_CHARS:
        return Verdict.WRONG
    numbers = _whole_number(left), _whole_number(right)
    if None not in numbers:
        return Verdict.CORRECT if numbers[0] == numbers[1] else Verdict.WRONG
    return judge(left, right)


def _whole_number(text: str) -> int | None:
    match = _WHOLE_NUMBER.fullmatch(text)
    return int(match[1].replace(",", "")) if match else None
