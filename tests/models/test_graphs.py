"""Recorded steps, by a recorder that runs the step again."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from realrl.models.graphs import SIZES, RecordedStep


class Again:
    """Counts what it records."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, step, inputs):
        self.sizes.append(len(inputs[0]))
        return partial(step, *inputs)


def test_a_step_is_recorded_once_a_size_and_rows_are_filled_up():
    seen: list[Tensor] = []

    def step(numbers: Tensor, absent: Tensor | None) -> Tensor:
        assert absent is None
        seen.append(numbers.clone())
        return numbers * 2

    record = Again()
    recorded = RecordedStep(step, (7, 0), record)
    for rows in (5, 5, 6, 3, 1):
        given = torch.arange(rows)
        assert torch.equal(recorded(given, None), given * 2)
    assert record.sizes == [6, 3, 1]
    assert seen[0].tolist() == [0, 1, 2, 3, 4, 7]


def test_a_batch_has_at_most_half_as_many_rows_again():
    for rows in range(1, 5000):
        size = min(s for s in SIZES if s >= rows)
        assert size <= rows * 1.5
