"""Checks that a config names rows, and that training and evaluation have other ones."""

from __future__ import annotations

import math
import os

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.data import GYM_PREFIX, DataConfig, DataPart
from realrl.api.recipe import Recipe
from realrl.api.traits import Evaluating, data_of, evals_of
from realrl.apps.rows import rows_key
from realrl.base.counting import counted
from realrl.datasets.parquet import HUGGING_FACE
from realrl.datasets.sums import SUMS
from realrl.planner.run_inputs import RunInputs
from realrl.runtime.master.best import best_set_of, criterion_of

MOST_SAMPLES = 2**18
"""Samples of a step or an evaluation: the master plans for each of them."""


def check_named(config: RunConfig) -> None:
    """Check that the config names rows."""
    data = data_of(config)
    if data is not None and not data.paths:
        raise ValueError(
            "data.path: expected a file of rows (.jsonl, .json, .parquet), hf:OWNER/NAME or gym:TASK, got"
            " none; give one, as data.path=FILE; experiments/sums has demos that need none"
        )


def check_disjoint(config: RunConfig) -> None:
    """Check that evaluation is on rows that training does not see."""
    data = data_of(config)
    if data is None:
        return
    if data.held_out_path:
        for part in data.parts():
            _check_part_disjoint(part, data.held_out_path, data.held_out_split)
    for name, each in evals_of(config).items():
        of_set = each.data(data)
        for part in data.parts():
            _check_set_disjoint(part, name, of_set)


def _check_part_disjoint(part: DataPart, held_out_path: str, held_out_split: str) -> None:
    """Check that the rows of one set, or the only ones, are not the held-out ones."""
    data = part.data
    # These hold rows out of the same path.
    if data.path == SUMS or data.path.startswith(GYM_PREFIX):
        return
    if _real_path(data.path) != _real_path(held_out_path):
        return
    if not data.path.startswith(HUGGING_FACE):
        raise ValueError(
            f"data.eval_path: expected rows held out from training, got the file of {part.section}.path,"
            f" {data.path}; give another one, or '' for no evaluation"
        )
    if data.split == held_out_split:
        raise ValueError(
            f"data.eval_split: expected rows held out from training, got {part.section}.split, {data.split};"
            " give another one, or data.eval_path='' for no evaluation"
        )


def _check_set_disjoint(part: DataPart, name: str, of_set: DataConfig) -> None:
    """Check that the rows of one data set, or the only ones, are not those of a set to evaluate on."""
    path = part.data.path
    if path == SUMS or path.startswith(GYM_PREFIX) or _real_path(path) != _real_path(of_set.held_out_path):
        return
    if not path.startswith(HUGGING_FACE):
        raise ValueError(
            f"evals.{name}.path: expected rows that training does not see, got the file of"
            f" {part.section}.path, {path}; give another one"
        )
    if part.data.split == of_set.held_out_split:
        raise ValueError(
            f"evals.{name}.split: expected rows that training does not see, got {part.section}.split,"
            f" {part.data.split}; give another one"
        )


def check_evaluations(recipe: Recipe, config: RunConfig, inputs: RunInputs) -> None:
    """Check that evaluations are not too large, and that `keep_best` can do what it says.

    Raises:
        ValueError: a set has too many answers, or `keep_best` names what does not decide.
    """
    for name, facts in inputs.more_sets.items():
        num_answers = evals_of(config)[name].n
        number = num_answers * len(facts)
        if number > MOST_SAMPLES:
            raise ValueError(
                f"evals.{name}.n: {len(facts)} problems of {num_answers} answers are {number}, but at most"
                f" {MOST_SAMPLES} are possible; lower it, or set evals.{name}.limit"
            )
    criterion_of(recipe, config)
    if not isinstance(config, TrainingConfig) or not isinstance(config.keep_best, str):
        return
    name = best_set_of(config)
    own = evals_of(config)[name].every if name in evals_of(config) else None
    if not (config.eval_every if own is None else own):
        raise ValueError(
            f"keep_best: {config.keep_best!r} is evaluated only at the start and the end; set eval_every, or"
            " keep_best=false"
        )


def _real_path(path: str) -> str:
    """Return a file's path without links."""
    expanded = os.path.expanduser(path)
    return os.path.realpath(expanded)


def notes_of_data(config: RunConfig, inputs: RunInputs) -> list[str]:
    """Return notes on settings of a training that need more rows than it has."""
    if not isinstance(config, TrainingConfig):
        return []
    notes = []
    number = len(inputs.rows)
    if number < config.batch_size:
        rows = counted(number, "row")
        notes.append(
            f"{key_of_rows(config)} has {rows}, fewer than batch_size={config.batch_size}: rows are repeated"
            " in a step"
        )
    for each in inputs.rows.sets:
        # Largest whole number of its rows in a batch.
        most = math.ceil(config.batch_size * each.share)
        if each.num_rows < most:
            rows = counted(each.num_rows, "row")
            notes.append(
                f"data.sets.{each.name} has {rows}, fewer than its {most} of batch_size={config.batch_size}:"
                " they are repeated in a step; lower its weight, or give it more rows"
            )
    if config.eval_every and inputs.held_out is None and not inputs.more_sets:
        sets = ", or sets as evals" if isinstance(config, Evaluating) else ""
        notes.append(
            f"eval_every={config.eval_every}: nothing is evaluated, as there are no held-out rows; give some"
            f" as data.eval_path{sets}"
        )
    return notes


def key_of_rows(config: RunConfig) -> str:
    """Return the dotted key that names the training rows."""
    data = data_of(config)
    assert data is not None, "every recipe reads rows, so its config has the section data"
    return rows_key(data)
