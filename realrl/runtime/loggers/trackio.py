"""Metrics to trackio: to the Space or server of its variables, else to the run's folder `trackio`.

TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL are trackio's.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.runtime.loggers.interface import RunFacts, numbers_of, plain_name

_DIRECTORY = "TRACKIO_DIR"


class TrackioLogger:
    """One trackio run; a resumed run continues under its name."""

    def __init__(self, facts: RunFacts) -> None:
        # trackio reads this once, when it is imported; the process is this logger's own.
        os.environ.setdefault(_DIRECTORY, str(Path(facts.directory).resolve() / "trackio"))
        import trackio

        self._trackio = trackio
        # It only warns of what it could not write; here that is a failure.
        self._warnings: list[str] = []
        warnings.showwarning = self._note
        warnings.simplefilter("always")
        project = plain_name(facts.experiment)
        self._run = trackio.init(
            project=project,
            name=facts.trial,
            config=facts.config,
            resume="allow" if facts.continues else "never",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        show = f"`{_DIRECTORY}={os.environ[_DIRECTORY]} trackio show --project {project}` shows it"
        remote = os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        self.where = remote or show
        self._raise_warnings()

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)
        self._raise_warnings()

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        if summary is not None:
            numbers = {f"summary/{name}": value for name, value in numbers_of(summary).items()}
            self._run.log(numbers, step=int(summary.get("num_steps", 0)))
        if failure is not None:
            # It has no state for a failed run.
            self._run.alert("failed", failure, self._trackio.AlertLevel.ERROR)
        self._run.finish()
        self._raise_warnings()

    def _note(self, message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        if Path(filename).parent == Path(self._trackio.__file__).parent:
            self._warnings.append(str(message))

    def _raise_warnings(self) -> None:
        noted, self._warnings = self._warnings, []
        if noted:
            raise RuntimeError("; ".join(noted))


def open_logger(facts: RunFacts) -> TrackioLogger:
    return TrackioLogger(facts)
