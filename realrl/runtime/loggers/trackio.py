"""Logs metrics to trackio: to the Space or server of its variables, else to the run's folder `trackio`.

TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL are trackio's own variables.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from realrl.runtime.loggers.interface import RunFacts, plain_name, summary_scalars

_DIRECTORY = "TRACKIO_DIR"


class TrackioLogger:
    """One trackio run; a resumed run keeps its name."""

    def __init__(self, facts: RunFacts) -> None:
        # trackio reads this only when it is imported. The process is this logger's own.
        folder = Path(facts.directory).resolve() / "trackio"
        os.environ.setdefault(_DIRECTORY, str(folder))
        import trackio

        self._trackio = trackio
        # trackio only warns if it cannot write; here that is a failure.
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
        """Record the numbers of one step or evaluation."""
        self._run.log(dict(scalars), step=step)
        self._raise_warnings()

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record how the run ended."""
        if summary is not None:
            last_step = int(summary.get("num_steps", 0))
            self._run.log(summary_scalars(summary), step=last_step)
        if failure is not None:
            # trackio has no state for a failed run.
            level = self._trackio.AlertLevel.ERROR
            self._run.alert("failed", failure, level)
        self._run.finish()
        self._raise_warnings()

    def _note(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Take in a warning, as `warnings.showwarning`; those of other packages are dropped."""
        package = Path(self._trackio.__file__).parent
        if Path(filename).parent == package:
            self._warnings.append(str(message))

    def _raise_warnings(self) -> None:
        """Raise the warnings since the last call, if there are any."""
        noted = self._warnings
        self._warnings = []
        if noted:
            raise RuntimeError("; ".join(noted))


def open_logger(facts: RunFacts) -> TrackioLogger:
    """Open the logger of a run."""
    return TrackioLogger(facts)
