"""Rows that reasoning-gym makes: the training and the held-out side of tasks by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from realrl.api.data import DataConfig, GymConfig, gym_tasks
from realrl.base.seeding import derive_seed
from realrl.rewards.gym import GymTask, Question, questions


def gym_records(data: DataConfig, key: str, *, held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a side, under its place; held-out ones ask nothing that training asks.

    Raises:
        ValueError: a task that there is not, parameters or levels that do not fit it, no held-out rows, or no
            reasoning-gym.
    """
    rows = _rows(data.path, data.gym, key, held_out=False)
    if held_out:
        trained = {row.text for row in rows}
        rows = [r for r in _rows(data.held_out_path, data.gym, key, held_out=True) if r.text not in trained]
        if not rows:
            raise ValueError(
                f"{key}: {data.held_out_path}: training has all of these questions; give less data.gym.size,"
                " or parameters that leave room for more"
            )
    return ((f"gym:{_id(row)}", _record(row)) for row in rows)


def make_gym_rows(data: DataConfig) -> None:
    """Have the rows of tasks made in this process, which keeps them: a fork of it then has them, too.

    Raises:
        ValueError: as `gym_records`.
    """
    for held_out, path in ((False, data.path), (True, data.held_out_path)):
        key = "data.eval_path" if held_out else "data.path"
        if gym_tasks(path):
            _rows(path, data.gym, key, held_out=held_out)


def _rows(path: str, gym: GymConfig, key: str, *, held_out: bool) -> Sequence[Question]:
    try:
        return questions(tuple(_tasks(path, gym, held_out=held_out)))
    except ValueError as error:
        raise ValueError(f"{key}: gym: {error}") from None


def _tasks(path: str, gym: GymConfig, *, held_out: bool) -> Iterator[GymTask]:
    """Each task, once a level, with its part of the rows."""
    size, side = (gym.eval_size, "held-out") if held_out else (gym.size, "training")
    levels = gym.levels or (None,)
    for name in gym_tasks(path):
        parameters = msgspec.json.encode(gym.parameters.get(name, {})).decode()
        for i, level in enumerate(levels):
            part = size * (i + 1) // len(levels) - size * i // len(levels)
            seed = derive_seed(gym.seed, side, name, str(level)) % 2**31
            yield GymTask(name, seed, part, level, parameters)


def _record(row: Question) -> dict[str, Any]:
    answers = [] if row.answer is None else [row.answer]
    record = {"query_id": _id(row), "prompt": row.text, "solutions": answers, "gym": row.item}
    return record | {"response": row.answer, "difficulty": row.item.task.level}


def _id(row: Question) -> str:
    task, index = row.item
    return f"{task.name}/{index}" if task.level is None else f"{task.name}/{task.level}/{index}"
