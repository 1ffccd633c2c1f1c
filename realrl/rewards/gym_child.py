"""The child process in which reasoning-gym makes rows and scores answers; needs `realrl[gym]`.

`child_entry.py` runs it. Each line of its input is
`{"task": GymTask as JSON, "index": …}`, of a row to make, and with `"answer"` of one to score; each line of
its output `{"question": …, "answer": …}` or `{"score": …}`, or `{"error": str}`.

A row is a function of its request alone: some tasks draw from the global generator, which is seeded for each
row, others go by the order of a set, which the child's environment fixes.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import os
import random
import sys
from typing import Any

import reasoning_gym
from reasoning_gym.factory import CURRICULA, DATASETS

from realrl.base.seeding import derive_seed
from realrl.rewards.child import Reply, main

_READING = ("os.listdir", "os.scandir")
_FORBIDDEN = ("os.", "subprocess.", "shutil.", "socket.", "ctypes.", "pty.")


class Gym:
    """Makes rows and scores answers."""

    def __init__(self) -> None:
        self._is_scoring = False
        sys.dont_write_bytecode = True
        sys.addaudithook(self._refuse)

    def reply(self, request: dict[str, Any]) -> Reply:
        """Raises: MemoryError, after which the process is in no known state."""
        try:
            entry = _entry(request["task"], request["index"])
        except MemoryError:
            raise
        except Exception as error:
            return {"error": str(error) or type(error).__name__}
        if "answer" in request:
            return {"score": self._score(_dataset(request["task"]), request["answer"], entry)}
        return {"question": entry["question"], "answer": entry["answer"]}

    def _score(self, dataset: Any, answer: str, entry: dict[str, Any]) -> float:
        """An answer that a task's scorer fails on is wrong."""
        self._is_scoring = True
        try:
            return float(dataset.score_answer(answer, entry))
        except MemoryError:
            raise
        except Exception:
            return 0.0
        finally:
            self._is_scoring = False

    def _refuse(self, event: str, arguments: tuple) -> None:
        """Some tasks evaluate an answer as Python; a careless one is not to touch files or start programs."""
        if not self._is_scoring or event in _READING:
            return
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event.startswith(_FORBIDDEN):
            raise PermissionError(f"an answer asked for {event}")


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


def run(deadline_s: float, memory_bytes: int) -> None:
    """Make rows and score answers."""
    main(Gym, deadline_s, memory_bytes)
