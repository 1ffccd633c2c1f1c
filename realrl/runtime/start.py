"""What an attempt of a run starts from: nothing, or what earlier attempts left.

fresh      an empty directory
resumed    the newest whole recovery point of a training, or the whole batches of a pass;
           records of what came after it are cut
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.configure import dump_config
from realrl.api.messages import Recovery
from realrl.api.recipe import Recipe
from realrl.base.files import write_atomically
from realrl.runtime.directory import fresh_directory
from realrl.runtime.history import Past, cut_batches, cut_records, drop_records
from realrl.runtime.inputs import InputDigests
from realrl.runtime.master.checkpoints import tidy
from realrl.runtime.master.recorder import run_directory
from realrl.runtime.master.recovery import finish_writing, newest_recovery
from realrl.runtime.resume import is_done, read_summary, recorded_inputs, resumes
from realrl.runtime.run_files import CONFIG, SUMMARY


class Start(NamedTuple):
    """What an attempt starts from."""

    recovery: Recovery | None
    """The recovery point that a training resumes from, if it resumes."""
    past: Past
    notes: list[str]
    """Lines for a person."""
    inputs: InputDigests | None = None
    """What earlier attempts read, as far as that is known."""


def begin(recipe: Recipe, config: RunConfig) -> Start:
    """Prepare the directory of a run, new or resumed."""
    directory = run_directory(config)
    if resumes(config):
        start = _resume(recipe, config)
        if is_done(config):  # it is to train more steps; until it has, it is not done
            steps = read_summary(config)["num_steps"]
            (directory / SUMMARY).rename(directory / f"summary-{steps}.json")
    else:
        moved = fresh_directory(directory)
        notes = [f"an earlier run in {directory} is kept as {moved}"] if moved else []
        start = Start(None, Past(), notes)
    write_atomically(directory / CONFIG, dump_config(config, recipe=recipe.name))
    return start


def begin_again(recipe: Recipe, config: RunConfig) -> Start:
    """Prepare the directory of a run whose last attempt failed."""
    start = _resume(recipe, config)
    if not start.recovery and isinstance(config, TrainingConfig):
        drop_records(run_directory(config))
    return start


def _resume(recipe: Recipe, config: RunConfig) -> Start:
    """Return what earlier attempts left; records of more than can be resumed are cut."""
    directory = run_directory(config)
    if not isinstance(config, TrainingConfig):
        past = cut_batches(directory, recipe.samples_per_row(config))
        return Start(None, past, [], recorded_inputs(config))
    recovery, notes = _find_recovery(directory)
    past = cut_records(directory, recovery.step) if recovery else Past()
    return Start(recovery, past, notes, recorded_inputs(config))


def _find_recovery(directory: Path) -> tuple[Recovery | None, list[str]]:
    """Complete or remove what a kill cut short; return the newest whole recovery point, and notes."""
    finish_writing(directory)
    tidy(directory)
    return newest_recovery(directory)
