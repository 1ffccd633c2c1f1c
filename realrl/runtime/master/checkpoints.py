"""The places of a run's checkpoints, and which of them is the best.

RUN/checkpoints/.step-20.partial/   being written ──publish()──▶ RUN/checkpoints/step-20/
RUN/checkpoints/best/               the best so far, with best.json, which says of which step
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from realrl.api.evals import HELD_OUT
from realrl.api.recipe import Criterion
from realrl.base.files import finish_replacement, replace_directory, write_atomically

CHECKPOINTS = "checkpoints"
"""The folder of a run for what people take from it."""
RECOVERIES = "recovery"
"""The folder of a run for what it resumes from."""
BEST = "best"
_NOTE = "best.json"


def partial_directory(folder: Path, name: str) -> Path:
    """Return the directory in which a checkpoint is written before it is whole."""
    return folder / f".{name}.partial"


def publish(partial: Path) -> Path:
    """Give a checkpoint its name once every worker has written its part; return its directory."""
    name = partial.name.removeprefix(".").removesuffix(".partial")
    final = partial.with_name(name)
    replace_directory(partial, final)
    return final


def tidy(run_directory: Path) -> None:
    """Remove checkpoints that never became whole, and complete renames that a kill cut short."""
    for folder in (run_directory / CHECKPOINTS, run_directory / RECOVERIES):
        for partial in folder.glob(".*.partial"):
            shutil.rmtree(partial)
        for old in folder.glob(".*.old"):
            name = old.name.removeprefix(".").removesuffix(".old")
            finish_replacement(old, folder / name)


class BesideWeights:
    """The files that a recipe writes next to the weights of each checkpoint."""

    def __init__(self, files: Callable[[Mapping[str, float]], Mapping[str, str]]) -> None:
        """`files` returns texts by their paths in a checkpoint, from the metrics of a training step."""
        self._files = files
        self._metrics: Mapping[str, float] = {}

    def consider(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of a training step; the latest ones count."""
        self._metrics = metrics

    def write(self, directory: Path) -> None:
        """Write the files into the directory of a checkpoint."""
        for name, text in self._files(self._metrics).items():
            write_atomically(directory / name, text)


class Best:
    """The best evaluation so far."""

    def __init__(self, criterion: Criterion, eval_set: str = HELD_OUT) -> None:
        """`eval_set`: the set whose evaluations count."""
        self._criterion = criterion
        self.eval_set = eval_set
        self.step: int | None = None
        """The step of the best evaluation; None before there is one that found a number."""
        self.value = math.nan

    def consider(self, step: int, metrics: Mapping[str, float], eval_set: str = HELD_OUT) -> None:
        """Take in an evaluation: one that is as good as the best is not better. Other sets do not count."""
        if eval_set != self.eval_set:
            return
        value = metrics.get(self._criterion.metric, math.nan)
        if self._is_better(value):
            self.step = step
            self.value = value

    def _is_better(self, value: float) -> bool:
        """Return whether a value is better than the best; false for NaN."""
        if self.step is None:
            return not math.isnan(value)
        if self._criterion.larger_is_better:
            return value > self.value
        return value < self.value

    def describe(self) -> dict[str, Any]:
        """Return its step, the set unless it is the held-out rows, and the metric by which it is the best."""
        of_set = {} if self.eval_set == HELD_OUT else {"set": self.eval_set}
        return {"step": self.step, **of_set, self._criterion.metric: self.value}

    def outcome(self, run_directory: Path) -> dict[str, Any]:
        """Return which it is, and the directory of its weights.

        There is none if they are the weights that the run began with, or if a resumed run repeated that step
        with less success and replaced them.
        """
        directory = run_directory / CHECKPOINTS / BEST
        is_there = self.step and noted_step(directory) == self.step
        return {**self.describe(), "checkpoint": str(directory) if is_there else None}

    def note(self, directory: Path) -> None:
        """Write into the directory of its weights which step they are of."""
        text = json.dumps(self.describe(), indent=2)
        write_atomically(directory / _NOTE, f"{text}\n")


def noted_step(directory: Path) -> int | None:
    """Return the step that a checkpoint of the best is of; None if it has no note, or a damaged one."""
    try:
        return json.loads((directory / _NOTE).read_text())["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
