"""Logs metrics to SwanLab; offline, to the run's folder `swanlab`, if nobody is logged in.

SwanLab's own variables override realrl's choices: SWANLAB_MODE, SWANLAB_PROJ_NAME, SWANLAB_EXP_NAME,
SWANLAB_RUN_ID, SWANLAB_LOG_DIR.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.runtime.loggers.interface import RunFacts, plain_name, summary_scalars


class SwanlabLogger:
    """One SwanLab run; a resumed run keeps its id: online at once, offline when it is uploaded."""

    def __init__(self, facts: RunFacts) -> None:
        import swanlab

        self._last_step = 0
        folder = Path(facts.directory).resolve() / "swanlab"
        folder.mkdir(parents=True, exist_ok=True)
        mode = "online" if _is_logged_in() else "offline"
        options = {
            "SWANLAB_PROJ_NAME": ("project", plain_name(facts.experiment)),
            "SWANLAB_EXP_NAME": ("name", plain_name(facts.trial)),
            "SWANLAB_RUN_ID": ("id", facts.run_id),
            "SWANLAB_LOG_DIR": ("log_dir", str(folder)),
            "SWANLAB_MODE": ("mode", mode),
        }
        chosen = dict(option for variable, option in options.items() if variable not in os.environ)
        self._run = swanlab.init(config=facts.config, resume="allow", **chosen)
        self.where = ""
        if chosen.get("mode") == "offline":
            self.where = f"offline: `swanlab sync {folder}/run-*-{facts.run_id}` uploads it"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""
        self._run.log(dict(scalars), step=step)
        self._last_step = step

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record how the run ended."""
        if summary is not None:
            self._run.log(summary_scalars(summary), step=self._last_step)
        if failure is None:
            self._run.finish()
        else:
            self._run.finish(state="crashed", error=failure)


def _is_logged_in() -> bool:
    """Return whether there is a key, which SwanLab would otherwise ask for on a terminal."""
    if os.environ.get("SWANLAB_API_KEY"):
        return True
    home = os.environ.get("SWANLAB_ROOT") or os.environ.get("SWANLAB_SAVE_DIR") or Path.home() / ".swanlab"
    for folder in (Path.cwd() / ".swanlab", Path(home)):
        key_file = folder / ".netrc"
        if key_file.is_file():
            return True
    return False


def open_logger(facts: RunFacts) -> SwanlabLogger:
    """Open the logger of a run."""
    return SwanlabLogger(facts)
