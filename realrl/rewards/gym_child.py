"""The child process in which reasoning-gym makes rows and scores answers; needs `realrl[gym]`.

`child_entry.py` runs it. A request is `{"task": GymTask as JSON, "index": …}`, of a row to make, and with
`"answer"` of one to score; a reply `{"question": …, "answer": …}` or `{"score": …}`, or `{"error": str}`.
Rows are made in the child itself, before their answers are looked at; each answer is scored in a fork.

A row is a function of its request alone: some tasks draw from the global generator, which is seeded for each
row, others go by the order of a set, which the child's environment fixes.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import random
from copy import deepcopy
from typing import Any

import reasoning_gym
from reasoning_gym.factory import CURRICULA, DATASETS

from realrl.base.seeding import derive_seed
from realrl.rewards.gym_readers import evaluates_answers, make_safe, read_expression
from realrl.rewards.judging import Batch, Reply
from realrl.rewards.serving import serve

_WARM_UP = ("1", "x", "[[1, 2]]")
_ANSWERS_PER_FORK = 8
"""To one row; a fork costs more than most scores."""


class Gym:
    """Makes rows and scores answers."""

    evaluators = (read_expression,)

    def __init__(self) -> None:
        self._warm: set[str] = set()

    def prepared(self, request: Reply) -> Reply | None:
        """The row, unless there is an answer to it, for which it is kept.

        Raises:
            MemoryError: after it this process is in no known state.
        """
        try:
            entry = _entry(request["task"], request["index"])
        except MemoryError:
            raise
        except Exception as error:
            return {"error": str(error) or type(error).__name__}
        if "answer" in request:
            return None
        self._warm_up(request["task"], entry)
        return {"question": entry["question"], "answer": entry["answer"]}

    def _warm_up(self, task: str, entry: dict[str, Any]) -> None:
        """Score a row's own answer and some of ours, once a task: what a scorer imports and keeps for that
        would be made anew in each fork. It is part of making rows, which may take longer than a score.
        """
        if task in self._warm:
            return
        self._warm.add(task)
        for answer in (entry["answer"], *_WARM_UP):
            try:
                _dataset(task).score_answer(answer, deepcopy(entry))
            except MemoryError:
                raise
            except Exception:
                # What it is worth does not matter here: answers are scored in forks.
                continue

    def batch(self, request: Reply) -> Batch:
        """Some answers to one row; one alone where the library would evaluate it."""
        task = request["task"]
        size = 1 if evaluates_answers(json.loads(task)["name"]) else _ANSWERS_PER_FORK
        return Batch(f"{task} {request['index']}", size)

    def judged(self, request: Reply) -> Reply:
        """The score of an answer; one that a task's scorer fails on is wrong.

        Raises:
            MemoryError, RecursionError: scoring took more than there is, which says nothing of the answer.
        """
        # Of a row's answers each has a row of its own: some scorers change it.
        entry = deepcopy(_entry(request["task"], request["index"]))
        try:
            return {"score": float(_dataset(request["task"]).score_answer(request["answer"], entry))}
        except (MemoryError, RecursionError):
            raise
        except Exception:
            return {"score": 0.0}


@functools.lru_cache(maxsize=1024)
def _entry(task: str, index: int) -> dict[str, Any]:
    random.seed(derive_seed(task, index))
    return _dataset(task)[index]


@functools.cache
def _dataset(task: str) -> Any:
    fields = json.loads(task)
    name, level = fields["name"], fields["level"]
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        raise ValueError(
            f"reasoning-gym has no task {name!r}" + (f"; did you mean {near[0]}?" if near else "")
        )
    make_safe(name, DATASETS[name][0])
    given = {**fields["parameters"], "seed": fields["seed"], "size": fields["size"]}
    _check_parameters(name, fields["parameters"])
    if level is None:
        return reasoning_gym.create_dataset(name, **given)
    return DATASETS[name][0](config=_at_level(name, level, given))


def _check_parameters(name: str, parameters: dict[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(DATASETS[name][1])} - {"seed", "size"}
    if unknown := sorted(parameters.keys() - known):
        raise ValueError(
            f"data.gym.parameters.{name}: unknown name {unknown[0]!r}; expected some of"
            f" {', '.join(sorted(known))}"
        )


def _at_level(name: str, level: int, given: dict[str, Any]) -> Any:
    """The task's config at a level of its curriculum; an attribute with fewer levels stays at its highest."""
    if name not in CURRICULA:
        raise ValueError(f"data.gym.levels: {name} has no curriculum; leave them out")
    curriculum = CURRICULA[name]()
    attributes = curriculum.attributes.values()
    highest = max((len(attribute.levels) for attribute in attributes), default=0) - 1
    if level > highest:
        raise ValueError(f"data.gym.levels: the curriculum of {name} ends with level {highest}, got {level}")
    curriculum.set_global_level(level)
    set_by_level = {
        value
        for attribute in attributes
        for key, value in vars(attribute).items()
        if key in ("field_name", "lower_field_name", "upper_field_name")
    }
    if both := sorted(set_by_level & given.keys()):
        raise ValueError(f"data.gym.parameters.{name}: {both[0]} is set by data.gym.levels; give one of both")
    return curriculum.generate_configuration(given)


def run(memory_bytes: int) -> None:
    """Make rows and score answers."""
    serve(Gym, memory_bytes)
