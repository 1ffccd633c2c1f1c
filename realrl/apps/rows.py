"""What a start needs to know of a run's rows, found in a fork: a chat template may run without end."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from realrl.api.config import RunConfig
from realrl.api.recipe import Dataset, Recipe
from realrl.api.traits import data_of
from realrl.base.watched import Steps, run_watched
from realrl.datasets.digests import digest_rows
from realrl.datasets.form import form_of_prompts
from realrl.datasets.gym import make_gym_rows
from realrl.datasets.watched_tokenizer import WatchedTokenizer
from realrl.planner.run_inputs import RowFacts

ROWS_STEP_S = 60.0
"""Longest time for the chat template on a row, or the tokenizer on some rows, which takes milliseconds."""


def read_row_facts(
    recipe: Recipe, config: RunConfig, tokenizer: Any, tokenizer_path: str
) -> tuple[RowFacts, RowFacts | None]:
    """Read the training rows and the held-out ones, if there are any.

    `tokenizer_path` is the key of the model that the tokenizer is from.

    Raises:
        ValueError: rows that cannot be read, or not be turned into tokens in time.
    """
    data = data_of(config)
    assert data is not None, "every recipe reads rows, so its config has the section data"
    make_gym_rows(data)

    def read(steps: Steps) -> tuple[RowFacts, RowFacts | None]:
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        rows, held_out = recipe.datasets(config, WatchedTokenizer(tokenizer, steps))
        form_of = partial(form_of_prompts, data.template, tokenizer)
        of_rows = _facts("data.path", rows, form_of)
        return of_rows, None if held_out is None else _facts("data.eval_path", held_out, form_of)

    try:
        return run_watched(read, tuple[RowFacts, RowFacts | None], step_s=ROWS_STEP_S)
    except TimeoutError as error:
        raise ValueError(
            f"{tokenizer_path}: {error}, does not end within {ROWS_STEP_S:g} s; mend the tokenizer's files,"
            " or, for a chat template, set data.template=plain"
        ) from None
    except (ChildProcessError, MemoryError) as error:
        reason = str(error) or "it needs more memory than this machine has left"
        raise ValueError(f"data: the rows cannot be turned into tokens: {reason}") from None


def _facts(path: str, dataset: Dataset, form_of: Callable[[Tensor], str]) -> RowFacts:
    if not len(dataset):
        raise ValueError(f"{path}: expected at least one row, got none")
    numbers = range(len(dataset))
    length_of: Callable[[int], int] = getattr(dataset, "longest_sequence", dataset.length)
    sequence_lengths = tuple(map(length_of, numbers))
    longest_row = max(numbers, key=sequence_lengths.__getitem__)
    largest_token, largest_row = max((_largest_token(dataset, row), row) for row in numbers)
    return RowFacts(
        longest=max(map(dataset.length, numbers)),
        sequence_lengths=sequence_lengths,
        longest_place=_place(dataset, longest_row),
        largest_token=largest_token,
        largest_place=_place(dataset, largest_row),
        notes=tuple(getattr(dataset, "notes", ())),
        form=form_of(dataset.prompts[0]),
        digest=digest_rows(dataset),
    )


def _largest_token(dataset: Dataset, row: int) -> int:
    return max(int(t.max()) for t in dataset.tensors(row).values() if t.dtype == torch.int64)


def _place(dataset: Dataset, row: int) -> str:
    place = getattr(dataset, "place", None)
    return place(row) if place else f"row {row + 1}"
