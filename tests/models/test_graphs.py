"""Recorded steps, by a recorder that runs the step again."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.models.graphs import RecordedStep, Replay, size_of


class Again:
    """Records as CUDA does, by a first run, and replays by another one."""

    def __init__(self) -> None:
        self.num_recorded = 0
        self.num_replayed = 0

    def __call__(self, step: Replay) -> Replay:
        self.num_recorded += 1
        step()

        def replay() -> Tensor:
            self.num_replayed += 1
            return step()

        return replay


def test_a_step_is_recorded_once_a_size():
    numbers, seen = torch.arange(6), []

    def step(size: int) -> Tensor:
        seen.append(size)
        return numbers[:size] * 2

    record = Again()
    recorded = RecordedStep(step, record)
    for size in (6, 3):
        recorded.prepare(size)
    assert (seen, record.num_recorded, record.num_replayed) == ([6, 3], 2, 0)
    for size in (6, 6, 3):
        assert torch.equal(recorded(size), numbers[:size] * 2)
    numbers += 1
    assert recorded(3).tolist() == [2, 4, 6], "a replay reads what is there now"
    assert (record.num_recorded, record.num_replayed) == (2, 4)


def test_a_batch_has_at_most_half_as_many_rows_again():
    for rows in range(1, 5000):
        assert rows <= size_of(rows) <= rows * 1.5
