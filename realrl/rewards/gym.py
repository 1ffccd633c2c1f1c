"""Tasks of reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760): generates rows and scores answers.

All of the library's code runs in child processes, which are killed at a deadline.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from realrl.base.progress import Progress, counted, no_progress
from realrl.rewards.budget import Budget, seconds_for
from realrl.rewards.pool import ChildPool
from realrl.rewards.verdict import Verdict
from realrl.verifier.boxed import boxed_answer
from realrl.verifier.final_part import final_part

logger = logging.getLogger(__name__)

ROW_DEADLINE_S = 60.0
"""A row may take longer to generate than an answer to score."""
SCORE_DEADLINE_S = 5.0
MEMORY_BYTES = 4 << 30
"""Address space of one child, and of each of its forks."""


class GymTask(NamedTuple):
    """A task and everything that its rows depend on."""

    name: str
    seed: int
    size: int
    level: int | None
    """The level of its curriculum; None: the parameters alone."""
    parameters: str
    """A JSON object."""

    @property
    def as_json(self) -> str:
        """The task as a JSON object."""
        fields = self._asdict()
        # The parameters are JSON already: an object in it, not a text.
        fields["parameters"] = msgspec.Raw(self.parameters.encode())
        return msgspec.json.encode(fields).decode()


class GymItem(NamedTuple):
    """A row of a task, by which the row can be generated again."""

    task: GymTask
    number: int
    """The row's number in the task, from 0 on."""

    @property
    def request(self) -> dict[str, Any]:
        """The request to a child for this row."""
        return {"task": self.task.as_json, "index": self.number}


class Question(NamedTuple):
    """A row: its question, and an answer, or None for a task that only scores answers."""

    text: str
    answer: str | None
    item: GymItem


class Scored(NamedTuple):
    """A response's score, from 0 to 1, and its verdict; only a score of 1 is `CORRECT`."""

    score: float
    verdict: Verdict


@functools.lru_cache(maxsize=4)
def questions(tasks: tuple[GymTask, ...]) -> tuple[Question, ...]:
    """Return all rows of the tasks; they are the same in every process.

    Raises:
        ValueError: an unknown task, parameters that do not fit it, or reasoning-gym is not installed.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ValueError("these rows need the package reasoning-gym; install realrl[gym]")
    rows: list[Question] = []
    for task in tasks:
        for number in range(task.size):
            item = GymItem(task, number)
            rows.append(_question(item))
    return tuple(rows)


def _question(item: GymItem) -> Question:
    """Have a child generate a row."""
    reply = _pool_of(os.getpid()).ask(item.request)
    if "error" in reply:
        raise ValueError(f"{item.task.name}: {reply['error']}")
    return Question(reply["question"], reply["answer"], item)


def score_all(
    items: Sequence[GymItem],
    responses: Sequence[str],
    *,
    num_threads: int = 4,
    progress: Progress = no_progress,
    budget_s: float | None = None,
) -> list[Scored]:
    """Score each response's answer by its task in parallel threads, in the order of the responses.

    `budget_s` bounds the seconds of scoring, summed over the threads (None: by the number of responses). Once
    it is spent, every further answer is `TIMEOUT` at once.
    """
    if budget_s is None:
        budget_s = seconds_for(len(items))
    budget = Budget(budget_s)

    def score_one(item: GymItem, response: str) -> Scored:
        return _scored(item, response, budget)

    with ThreadPoolExecutor(num_threads) as threads:
        results = threads.map(score_one, items, responses)
        scored = list(counted(results, len(items), progress))
    budget.report(len(items))
    return scored


def answer_of(response: str) -> str:
    """Return the content of the last `<answer>` or box; without either, all text after the thoughts.

    The answer is empty if the response was cut off in its thoughts, in an `<answer>` or in a box.
    """
    part = final_part(response)
    if part is None:
        return ""
    boxed = None if part.tagged else boxed_answer(part.text)
    return part.text.strip() if boxed is None else boxed


def _scored(item: GymItem, response: str, budget: Budget) -> Scored:
    """Score a response within the budget; one without an answer needs no scoring."""
    answer = answer_of(response)
    if not answer:
        return Scored(0.0, Verdict.NO_ANSWER)
    timeout = Scored(0.0, Verdict.TIMEOUT)
    return budget.spend(lambda: _judged(item, answer), instead=timeout)


def _judged(item: GymItem, answer: str) -> Scored:
    """Have a child score an answer, and check its reply."""
    pool = _pool_of(os.getpid())
    request = {**item.request, "answer": answer}
    reply = pool.ask(request, deadline_s=SCORE_DEADLINE_S)
    if reply.get("verdict") == Verdict.TIMEOUT:
        return Scored(0.0, Verdict.TIMEOUT)
    score = reply.get("score")
    # The reply was written where the answer was judged: it may hold anything.
    is_score = isinstance(score, float) and 0.0 <= score <= 1.0
    if "error" in reply or score is None or not is_score:
        error = reply.get("error", f"expected a score from 0 to 1, got {score!r:.100}")
        logger.warning("scoring %.200r by %s: %s", answer, item.task.name, error)
        return Scored(0.0, Verdict.ERROR)
    verdict = Verdict.CORRECT if score == 1.0 else Verdict.WRONG
    return Scored(score, verdict)


@functools.cache
def _pool_of(pid: int) -> ChildPool:
    """Return this process's pool. A forked process has another id, and therefore children of its own."""
    return ChildPool(
        "realrl.rewards.gym_child",
        num_children=2,
        deadline_s=ROW_DEADLINE_S,
        memory_bytes=MEMORY_BYTES,
    )
