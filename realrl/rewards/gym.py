"""Tasks of reasoning-gym (Stojanovski et al. 2025, arXiv:2505.24760): makes rows, and scores answers to them.

All of its code runs in child processes, which are killed at a deadline.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from realrl.base.progress import Progress, counted, no_progress
from realrl.rewards.pool import ChildPool
from realrl.rewards.verdict import Verdict
from realrl.verifier.boxes import boxed_answer
from realrl.verifier.final_part import final_part

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
) -> list[Scored]:
    """What each response's answer is worth by its task; slow ones do not wait for each other."""
    with ThreadPoolExecutor(num_threads) as threads:
        return list(counted(threads.map(_scored, items, responses), len(items), progress))


def answer_of(response: str) -> str:
    """Return what the last `<answer>` or box holds; without either, all that comes after the thoughts.

    It is empty where the response was cut off in its thoughts, in an `<answer>` or in a box.
    """
    part = final_part(response)
    if part is None:
        return ""
    boxed = None if part.tagged else boxed_answer(part.text)
    return part.text.strip() if boxed is None else boxed


def _scored(item: GymItem, response: str) -> Scored:
    if not (answer := answer_of(response)):
        return Scored(0.0, Verdict.NO_ANSWER)
    reply = _pool_of(os.getpid()).ask({**item.request, "answer": answer}, deadline_s=SCORE_DEADLINE_S)
    if "error" in reply:
        return Scored(0.0, Verdict(reply["verdict"]))
    score = reply["score"]
    return Scored(score, Verdict.CORRECT if score >= 1 else Verdict.WRONG)


@functools.cache
def _pool_of(pid: int) -> ChildPool:
    """A forked process has another id, and so children of its own."""
    limits = {"deadline_s": ROW_DEADLINE_S, "memory_bytes": MEMORY_BYTES}
    return ChildPool("realrl.rewards.gym_child", num_children=2, **limits)
