"""Reads the facts about a run's rows that a start needs, in a fork: a chat template may run without end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from realrl.api.config import RunConfig
from realrl.api.data import DataConfig, RowSet
from realrl.api.evals import EvalConfig, part_of
from realrl.api.recipe import Dataset, Recipe
from realrl.api.traits import data_of, evals_of
from realrl.base.watched import Steps, run_watched
from realrl.datasets.digests import digest_rows
from realrl.datasets.form import form_of_prompts
from realrl.datasets.gym import make_gym_rows
from realrl.datasets.watched_tokenizer import WatchedTokenizer
from realrl.planner.run_inputs import RowFacts, SetFacts

ROWS_STEP_S = 60.0
"""Longest time for the chat template on a row, or the tokenizer on some rows, which takes milliseconds."""


AllFacts = tuple[RowFacts, RowFacts | None, dict[str, RowFacts]]
"""Of the training rows, of the held-out ones, and of further sets of those by name."""


def read_row_facts(recipe: Recipe, config: RunConfig, tokenizer: Any, tokenizer_path: str) -> AllFacts:
    """Read the training rows, the held-out ones if there are any, and further sets of those by name.

    `tokenizer_path` is the key of the model that the tokenizer is from.

    Raises:
        ValueError: rows that cannot be read, or not be turned into tokens in time.
    """
    data = data_of(config)
    assert data is not None, "every recipe reads rows, so its config has the section data"
    make_gym_rows(data)
    for name, each in evals_of(config).items():
        _make_gym_rows_of(name, each, data)

    def read(steps: Steps) -> AllFacts:
        """Read all sides, in the fork."""
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        watched = WatchedTokenizer(tokenizer, steps)
        rows, held_out = recipe.datasets(config, watched)
        first, *others = data.parts()
        of_rows = _facts(rows_key(data), rows, partial(form_of_prompts, first, tokenizer))
        forms = [of_rows.form]
        for part, each in zip(others, rows.sets[1:], strict=True):
            form = form_of_prompts(part, tokenizer, _prompt(rows, each.rows[0]))
            forms.append(form)
        of_rows = replace(of_rows, form="\n".join(forms))
        of_sets = {}
        for name, dataset in recipe.eval_sets(config, watched).items():
            form_of = partial(form_of_prompts, part_of(name, evals_of(config)[name], data), tokenizer)
            of_sets[name] = _facts(f"evals.{name}.path", dataset, form_of)
        if held_out is None:
            return of_rows, None, of_sets
        form_of = partial(form_of_prompts, data.whole, tokenizer)
        return of_rows, _facts("data.eval_path", held_out, form_of), of_sets

    try:
        return run_watched(read, tuple[RowFacts, RowFacts | None, dict[str, RowFacts]], step_s=ROWS_STEP_S)
    except TimeoutError as error:
        raise ValueError(
            f"{tokenizer_path}: {error}, does not end within {ROWS_STEP_S:g} s; mend the tokenizer's files,"
            " or, for a chat template, set data.template=plain"
        ) from None
    except (ChildProcessError, MemoryError) as error:
        reason = str(error) or "it needs more memory than this machine has left"
        raise ValueError(f"data: the rows cannot be turned into tokens: {reason}") from None


def rows_key(data: DataConfig) -> str:
    """Return the dotted key that names the training rows."""
    return "data.sets" if data.sets else "data.path"


def _make_gym_rows_of(name: str, each: EvalConfig, data: DataConfig) -> None:
    """Generate the rows of a set and cache them in this process, so that its forks inherit them."""
    try:
        make_gym_rows(each.data(data))
    except ValueError as error:
        what = str(error).removeprefix("data.eval_path: ")
        raise ValueError(f"evals.{name}.path: {what}") from None


@runtime_checkable
class _HasPrompts(Protocol):
    """A data set that can show its prompts."""

    @property
    def prompts(self) -> Sequence[Tensor]:
        """The tokens of each row's prompt."""


def _facts(path: str, dataset: Dataset, form_of: Callable[[Tensor], str]) -> RowFacts:
    """Return the facts about the rows that the key `path` names.

    `form_of` describes the form of a prompt.

    Raises:
        ValueError: there are no rows.
    """
    if not len(dataset):
        raise ValueError(f"{path}: expected at least one row, got none")
    numbers = range(len(dataset))
    # A row of pairs has two sequences, which its data set knows.
    length_of: Callable[[int], int] = getattr(dataset, "longest_sequence", dataset.length)
    sequence_lengths = tuple(map(length_of, numbers))
    longest_row = max(numbers, key=sequence_lengths.__getitem__)
    tokens = [_largest_token(dataset, row) for row in numbers]
    # Of rows with the same token, the last one.
    largest_token, largest_row = max(zip(tokens, numbers))
    return RowFacts(
        longest=max(map(dataset.length, numbers)),
        sequence_lengths=sequence_lengths,
        longest_place=_place(dataset, longest_row),
        largest_token=largest_token,
        largest_place=_place(dataset, largest_row),
        notes=tuple(getattr(dataset, "notes", ())),
        form=form_of(_prompt(dataset, 0)),
        digest=digest_rows(dataset),
        sets=_facts_of_sets(dataset.sets),
    )


def _facts_of_sets(sets: Sequence[RowSet]) -> tuple[SetFacts, ...]:
    """Return the size and the share of each data set."""
    total = sum(each.weight for each in sets)
    return tuple(SetFacts(each.name, len(each.rows), each.weight / total) for each in sets)


def _prompt(dataset: Dataset, row: int) -> Tensor:
    """Return the tokens of a row's prompt."""
    assert isinstance(dataset, _HasPrompts), "every data set has the tokens of its prompts"
    return dataset.prompts[row]


def _largest_token(dataset: Dataset, row: int) -> int:
    """Return the largest token of a row."""
    largest = [int(tensor.max()) for tensor in dataset.tensors(row).values() if tensor.dtype == torch.int64]
    return max(largest)


def _place(dataset: Dataset, row: int) -> str:
    """Return the file and line of a row, or else its number."""
    place = getattr(dataset, "place", None)
    if place is None:
        return f"row {row + 1}"
    return place(row)
