"""Metrics as TensorBoard's event files, in the run's folder `tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.runtime.loggers.interface import RunFacts

FOLDER = "tensorboard"


class TensorBoardLogger:
    """Event files; TensorBoard drops the steps from `first_step` on that earlier ones hold."""

    where = ""

    def __init__(self, facts: RunFacts) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(facts.directory) / FOLDER
        self._writer = SummaryWriter(str(folder), purge_step=facts.first_step)
        self._last_step = facts.first_step
        if not facts.continues:
            self._writer.add_hparams(_plain(facts.config), {}, run_name=".")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        self._last_step = step

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        if failure is not None:
            self._writer.add_text("failure", failure, self._last_step)
        if summary is not None:
            self._writer.add_text("summary", _as_code(summary), self._last_step)
        self._writer.close()


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the types that hyper-parameters may have; others as text."""
    return {key: v if isinstance(v, (bool, int, float, str)) else json.dumps(v) for key, v in config.items()}


def _as_code(summary: Mapping[str, Any]) -> str:
    """Markdown: a line that is indented is shown as it is."""
    lines = json.dumps(summary, indent=2).splitlines()
    return "\n".join(f"    {line}" for line in lines)


def open_logger(facts: RunFacts) -> TensorBoardLogger:
    return TensorBoardLogger(facts)
