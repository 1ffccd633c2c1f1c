"""Rows from reasoning-gym: the training and the held-out questions of the named tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from realrl.api.data import DataConfig, GymConfig, gym_tasks
from realrl.base.seeding import derive_seed
from realrl.rewards.gym import GymTask, Question, questions

_NUM_SEEDS = 2**31
"""Task seeds are below this number."""


def gym_records(data: DataConfig, key: str, *, held_out: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return the place and the record of each row; held-out rows exclude every training question.

    Raises:
        ValueError: an unknown task, parameters or levels that do not fit it, no held-out rows, or
            reasoning-gym is not installed.
    """
    if held_out:
        rows: Sequence[Question] = _untrained_rows(data, key)
    else:
        rows = _rows(data.path, data.gym, key, held_out=False)
    return ((f"gym:{_id(row)}", _record(row)) for row in rows)


def make_gym_rows(data: DataConfig) -> None:
    """Generate the rows of both sides and cache them in this process, so that its forks inherit them.

    Raises:
        ValueError: as `gym_records`.
    """
    for part in data.parts():
        if gym_tasks(part.data.path):
            _rows(part.data.path, part.data.gym, f"{part.section}.path", held_out=False)
    if gym_tasks(data.held_out_path):
        _rows(data.held_out_path, data.gym, "data.eval_path", held_out=True)


def _untrained_rows(data: DataConfig, key: str) -> list[Question]:
    """Return the held-out rows whose question is not a training question."""
    trained_texts: set[str] = set()
    for path in data.paths:
        trained = _rows(path, data.gym, key, held_out=False)
        trained_texts.update(row.text for row in trained)
    candidates = _rows(data.held_out_path, data.gym, key, held_out=True)
    rows = [row for row in candidates if row.text not in trained_texts]
    if not rows:
        raise ValueError(
            f"{key}: {data.held_out_path}: training has all of these questions; give less data.gym.size,"
            " or parameters that leave room for more"
        )
    return rows


def _rows(path: str, gym: GymConfig, key: str, *, held_out: bool) -> Sequence[Question]:
    """Return one side's questions; errors name the config key."""
    try:
        tasks = tuple(_tasks(path, gym, held_out=held_out))
        return questions(tasks)
    except ValueError as error:
        raise ValueError(f"{key}: gym: {error}") from None


def _tasks(path: str, gym: GymConfig, *, held_out: bool) -> Iterator[GymTask]:
    """Yield each task once per level; the levels share the task's rows as evenly as possible."""
    size = gym.eval_size if held_out else gym.size
    side = "held-out" if held_out else "training"
    levels = gym.levels or (None,)
    for name in gym_tasks(path):
        given_parameters = gym.parameters.get(name, {})
        parameters = msgspec.json.encode(given_parameters).decode()
        begin = 0
        for place, level in enumerate(levels, 1):
            end = size * place // len(levels)
            full_seed = derive_seed(gym.seed, side, name, str(level))
            seed = full_seed % _NUM_SEEDS
            yield GymTask(name, seed, end - begin, level, parameters)
            begin = end


def _record(row: Question) -> dict[str, Any]:
    """Return a question as a record that serves every kind of row."""
    return {
        "query_id": _id(row),
        "prompt": row.text,
        "solutions": [] if row.answer is None else [row.answer],
        "gym": row.item,
        "response": row.answer,
        "difficulty": row.item.task.level,
    }


def _id(row: Question) -> str:
    task = row.item.task
    number = row.item.number
    if task.level is None:
        return f"{task.name}/{number}"
    return f"{task.name}/{task.level}/{number}"
