"""Logs metrics to TensorBoard's event files, in the run's folder `tensorboard`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.runtime.loggers.interface import RunFacts

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Event files; TensorBoard drops the steps from `first_step` on that are in earlier files."""

    where = ""

    def __init__(self, facts: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(facts.directory) / FOLDER
        self._writer = SummaryWriter(str(folder), purge_step=facts.first_step)
        self._last_step = facts.first_step
        if not facts.continues:
            self._writer.add_hparams(_plain(facts.config), {}, run_name=".")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._last_step = step

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record how the run ended, and close the file."""
        if failure is not None:
            self._writer.add_text("failure", failure, self._last_step)
        if summary is not None:
            self._writer.add_text("summary", _as_code(summary), self._last_step)
        self._writer.close()


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return values of the types that hyper-parameters may have; others become text."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        is_plain = isinstance(value, (bool, int, float, str))
        found[key] = value if is_plain else json.dumps(value)
    return found


def _as_code(summary: Mapping[str, Any]) -> str:
    """Return a summary as Markdown, in which indented lines are shown as they are."""
    text = json.dumps(summary, indent=2)
    return textwrap.indent(text, "    ")


def open_logger(facts: RunFacts) -> TensorBoardLogger:
    """Open the logger of a run."""
    return TensorBoardLogger(facts)
