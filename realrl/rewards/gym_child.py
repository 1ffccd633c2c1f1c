"""The child process in which reasoning-gym generates rows and scores answers; needs `realrl[gym]`.

`child_entry.py` runs it.

    request                                              reply, or {"error": str}
    {"task": GymTask as JSON, "index": …}                {"question": …, "answer": …}
    {"task": GymTask as JSON, "index": …, "answer": …}   {"score": …}

The child itself generates the rows, before it looks at an answer; each answer is scored in a fork.

A row depends on its request alone. Some tasks draw from the global generator, which is seeded for each row.
Others depend on the order of a set, which the child's environment fixes.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import reasoning_gym
from reasoning_gym.factory import CURRICULA, DATASETS

from realrl.base.seeding import derive_seed
from realrl.rewards.gym_readers import evaluates_answers, make_safe, read_expression
from realrl.rewards.judging import Batch, Reply
from realrl.rewards.serving import serve

_WARM_UP = ("1", "x", "[[1, 2]]")
"""Answers of common kinds."""
_ANSWERS_PER_FORK = 8
"""Answers to one row that share a fork: a fork costs more than most scores."""


class Gym:
    """Generates rows and scores answers; a `realrl.rewards.judging.Judge`."""

    evaluators: Sequence[Callable[..., object]] = (read_expression,)

    def __init__(self) -> None:
        self._warm: set[str] = set()

    def prepared(self, request: Reply) -> Reply | None:
        """Generate the row; return it for a request without an answer, else keep it and return None.

        Raises:
            MemoryError: this process is in no known state any more.
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
        """Score a row's own answer and some common ones, once per task.

        Otherwise each fork would repeat what a scorer imports and caches. It is done when a row is generated
        because that may take longer than a score.
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
                # The score does not matter here: answers are scored in forks.
                continue

    def batch(self, request: Reply) -> Batch:
        """Return a batch of answers to one row; an answer that the library would evaluate is alone in it."""
        task = request["task"]
        name = json.loads(task)["name"]
        size = 1 if evaluates_answers(name) else _ANSWERS_PER_FORK
        return Batch(f"{task} {request['index']}", size)

    def judged(self, request: Reply) -> Reply:
        """Return the score of an answer; an answer that its task's scorer fails on is wrong.

        Raises:
            MemoryError, RecursionError: scoring exceeded a limit, so the answer has no score.
        """
        task = request["task"]
        # Each answer gets a copy of the row: some scorers modify it.
        entry = deepcopy(_entry(task, request["index"]))
        try:
            score = _dataset(task).score_answer(request["answer"], entry)
            return {"score": float(score)}
        except (MemoryError, RecursionError):
            raise
        except Exception:
            return {"score": 0.0}


@functools.lru_cache(maxsize=1024)
def _entry(task: str, index: int) -> dict[str, Any]:
    """Generate a row, from a seed of its own."""
    random.seed(derive_seed(task, index))
    return _dataset(task)[index]


@functools.cache
def _dataset(task: str) -> Any:
    """Return the library's dataset of a task, with a scorer that evaluates no answers."""
    fields = json.loads(task)
    name = fields["name"]
    level = fields["level"]
    if name not in DATASETS:
        raise _unknown_task(name)
    dataset_class = DATASETS[name][0]
    make_safe(name, dataset_class)
    given = {**fields["parameters"], "seed": fields["seed"], "size": fields["size"]}
    _check_parameters(name, fields["parameters"])
    if level is None:
        return reasoning_gym.create_dataset(name, **given)
    config = _at_level(name, level, given)
    return dataset_class(config=config)


def _unknown_task(name: str) -> ValueError:
    """Return the error for a name that is no task, with the most similar name."""
    similar = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"; did you mean {similar[0]}?" if similar else ""
    return ValueError(f"reasoning-gym has no task {name!r}{hint}")


def _check_parameters(name: str, parameters: dict[str, Any]) -> None:
    """Raise ValueError for a parameter that the task does not have."""
    _, config_class = DATASETS[name]
    known = {field.name for field in dataclasses.fields(config_class)}
    known -= {"seed", "size"}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        expected = ", ".join(sorted(known))
        raise ValueError(
            f"data.gym.parameters.{name}: unknown name {unknown[0]!r}; expected some of {expected}"
        )


def _at_level(name: str, level: int, given: dict[str, Any]) -> Any:
    """Return the task's config at a level of its curriculum.

    An attribute with fewer levels stays at its highest one.
    """
    if name not in CURRICULA:
        raise ValueError(f"data.gym.levels: {name} has no curriculum; leave them out")
    curriculum = CURRICULA[name]()
    attributes = curriculum.attributes.values()
    highest = -1
    for attribute in attributes:
        highest = max(highest, len(attribute.levels) - 1)
    if level > highest:
        raise ValueError(f"data.gym.levels: the curriculum of {name} ends with level {highest}, got {level}")
    curriculum.set_global_level(level)
    fields = _fields_of(attributes)
    both = sorted(fields & given.keys())
    if both:
        raise ValueError(f"data.gym.parameters.{name}: {both[0]} is set by data.gym.levels; give one of both")
    return curriculum.generate_configuration(given)


def _fields_of(attributes: Iterable[Any]) -> set[str]:
    """Return the config fields that the attributes of a curriculum set."""
    fields = set()
    for attribute in attributes:
        # An attribute of a range has two fields instead of one.
        for key in ("field_name", "lower_field_name", "upper_field_name"):
            if key in vars(attribute):
                fields.add(vars(attribute)[key])
    return fields


def run(memory_bytes: int) -> None:
    """Serve requests for rows and scores."""
    serve(Gym, memory_bytes)
