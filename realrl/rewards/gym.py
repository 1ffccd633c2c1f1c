"""Tasks of reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760): makes rows, and scores answers to them.

All of its code runs in child processes, which are killed at a deadline.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from realrl.base.progress import Progress, counted, no_progress
from realrl.rewards.budget import Budget, seconds_for
from realrl.rewards.pool import ChildPool
from realrl.rewards.verdict import Verdict
from realrl.verifier.boxed import boxed_answer
from realrl.verifier.final_part import final_part

logger = logging.getLogger(__name__)

ROW_DEADLINE_S, SCORE_DEADLINE_S = 60.0, 5.0
MEMORY_BYTES = 4 << 30


class GymTask(NamedTuple):
    """A task, and all that its rows depend on."""

    name: str
    seed: int
    size: int
    level: int | None
    """Of its curriculum; None for its parameters alone."""
    parameters: str
    """As JSON."""

    @property
    def as_json(self) -> str:
        parameters = msgspec.Raw(self.parameters.encode())
        return msgspec.json.encode({**self._asdict(), "parameters": parameters}).decode()


class GymItem(NamedTuple):
    """A row of a task, for whoever scores answers to it."""

    task: GymTask
    index: int

    @property
    def request(self) -> dict:
        return {"task": self.task.as_json, "index": self.index}


class Question(NamedTuple):
    """What a row asks; the answer is None where a task knows good ones by their score alone."""

    text: str
    answer: str | None
    item: GymItem


class Scored(NamedTuple):
    """What a response is worth, from 0 to 1, and whether that is all."""

    score: float
    verdict: Verdict


@functools.lru_cache(maxsize=4)
def questions(tasks: tuple[GymTask, ...]) -> tuple[Question, ...]:
    """All rows of some tasks: the same in every process.

    Raises:
        ValueError: no such task, parameters that do not fit it, or no reasoning-gym.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise ValueError("these rows need the package reasoning-gym; install realrl[gym]")
    return tuple(_asked(GymItem(task, index)) for task in tasks for index in range(task.size))


def _asked(item: GymItem) -> Question:
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
    """What each response's answer is worth by its task; slow ones do not wait for each other.

    Once `budget_s` of scoring is spent, summed over the threads, what is left is `TIMEOUT` at once; None: by
    the number of responses.
    """
    budget = Budget(seconds_for(len(items)) if budget_s is None else budget_s)
    with ThreadPoolExecutor(num_threads) as threads:
        scored = threads.map(lambda item, response: _scored(item, response, budget), items, responses)
        found = list(counted(scored, len(items), progress))
    budget.report(len(items))
    return found


def answer_of(response: str) -> str:
    """Return what the last `<answer>` or box holds; without either, all that comes after the thoughts.

    It is empty where the response was cut off in its thoughts, in an `<answer>` or in a box.
    """
    part = final_part(response)
    if part is None:
        return ""
    boxed = None if part.tagged else boxed_answer(part.text)
    return part.text.strip() if boxed is None else boxed


def _scored(item: GymItem, response: str, budget: Budget) -> Scored:
    if not (answer := answer_of(response)):
        return Scored(0.0, Verdict.NO_ANSWER)
    return budget.spend(lambda: _judged(item, answer), instead=Scored(0.0, Verdict.TIMEOUT))


def _judged(item: GymItem, answer: str) -> Scored:
    reply = _pool_of(os.getpid()).ask({**item.request, "answer": answer}, deadline_s=SCORE_DEADLINE_S)
    if reply.get("verdict") == Verdict.TIMEOUT:
        return Scored(0.0, Verdict.TIMEOUT)
    score = reply.get("score")
    # It was written where the answer was at work, so anything may be in it.
    if "error" in reply or not isinstance(score, float) or not 0.0 <= score <= 1.0:
        error = reply.get("error", f"expected a score from 0 to 1, got {score!r:.100}")
        logger.warning("scoring %.200r by %s: %s", answer, item.task.name, error)
        return Scored(0.0, Verdict.ERROR)
    return Scored(score, Verdict.CORRECT if score == 1.0 else Verdict.WRONG)


@functools.cache
def _pool_of(pid: int) -> ChildPool:
    """A forked process has another id, and so children of its own."""
    limits = {"deadline_s": ROW_DEADLINE_S, "memory_bytes": MEMORY_BYTES}
    return ChildPool("realrl.rewards.gym_child", num_children=2, **limits)
