"""Where a run's checkpoints lie, and which is the best."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.api.recipe import Criterion
from realrl.base.files import finish_replacement, replace_directory, write_atomically

CHECKPOINTS, RECOVERIES = "checkpoints", "recovery"
"""Folders of a run: of what people take from it, and of what it goes on from itself."""
BEST = "best"
_NOTE = "best.json"


def partial_directory(folder: Path, name: str) -> Path:
    """Where a checkpoint is written before it is whole."""
    return folder / f".{name}.partial"


def publish(partial: Path) -> Path:
    """Every worker has written its part: the checkpoint takes its name, which is returned."""
    final = partial.with_name(partial.name.removeprefix(".").removesuffix(".partial"))
    replace_directory(partial, final)
    return final


def tidy(run_directory: Path) -> None:
    """Remove checkpoints that never became whole, and end what a kill cut short between two renames."""
    for folder in (run_directory / CHECKPOINTS, run_directory / RECOVERIES):
        for partial in folder.glob(".*.partial"):
            shutil.rmtree(partial)
        for old in folder.glob(".*.old"):
            finish_replacement(old, folder / old.name.removeprefix(".").removesuffix(".old"))


class Best:
    """The best evaluation so far."""

    def __init__(self, criterion: Criterion) -> None:
        self._criterion = criterion
        self.step: int | None = None
        """None before there is one that found a number."""
        self.value = math.nan

    def consider(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take in an evaluation: one that is as good as the best is not better."""
        value = metrics.get(self._criterion.metric, math.nan)
        gain = value - self.value if self._criterion.larger_is_better else self.value - value
        if gain > 0 or (self.step is None and not math.isnan(value)):
            self.step, self.value = step, value

    def describe(self) -> dict[str, Any]:
        return {"step": self.step, self._criterion.metric: self.value}

    def outcome(self, run_directory: Path) -> dict[str, Any]:
        """Which it is, and where its weights lie: nowhere here if they are those that the run began with, or
        have given way to those of a step that a run which recovers made again, with less success.
        """
        directory = run_directory / CHECKPOINTS / BEST
        is_there = self.step and noted_step(directory) == self.step
        return {**self.describe(), "checkpoint": str(directory) if is_there else None}

    def note(self, directory: Path) -> None:
        """Say beside its weights which they are."""
        write_atomically(directory / _NOTE, json.dumps(self.describe(), indent=2) + "\n")


def noted_step(directory: Path) -> int | None:
    """The step whose weights a checkpoint of the best is of; None where it has no note, or a damaged one."""
    try:
        return json.loads((directory / _NOTE).read_text())["step"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
