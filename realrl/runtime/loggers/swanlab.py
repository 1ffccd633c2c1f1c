"""Metrics to SwanLab; offline, in the run's folder `swanlab`, where nobody is logged in.

SwanLab's own variables come first: SWANLAB_MODE, SWANLAB_PROJ_NAME, SWANLAB_EXP_NAME, SWANLAB_RUN_ID,
SWANLAB_LOG_DIR.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from realrl.runtime.loggers.interface import RunFacts, numbers_of, plain_name


class SwanlabLogger:
    """One SwanLab run; a resumed run continues under its id, online at once, offline when it is uploaded."""

    def __init__(self, facts: RunFacts) -> None:
        import swanlab

        self._last_step = 0
        folder = Path(facts.directory).resolve() / "swanlab"
        folder.mkdir(parents=True, exist_ok=True)
        options = {
            "SWANLAB_PROJ_NAME": ("project", plain_name(facts.experiment)),
            "SWANLAB_EXP_NAME": ("name", plain_name(facts.trial)),
            "SWANLAB_RUN_ID": ("id", facts.run_id),
            "SWANLAB_LOG_DIR": ("log_dir", str(folder)),
            "SWANLAB_MODE": ("mode", "online" if _is_logged_in() else "offline"),
        }
        chosen = dict(option for variable, option in options.items() if variable not in os.environ)
        self._run = swanlab.init(config=facts.config, resume="allow", **chosen)
        is_offline = chosen.get("mode") == "offline"
        self.where = f"offline: `swanlab sync {folder}/run-*-{facts.run_id}` uploads it" if is_offline else ""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=step)
        self._last_step = step

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        if summary is not None:
            numbers = {f"summary/{name}": value for name, value in numbers_of(summary).items()}
            self._run.log(numbers, step=self._last_step)
        if failure is None:
            self._run.finish()
        else:
            self._run.finish(state="crashed", error=failure)


def _is_logged_in() -> bool:
    """Whether there is a key, which SwanLab would otherwise ask for on a terminal."""
    home = os.environ.get("SWANLAB_ROOT") or os.environ.get("SWANLAB_SAVE_DIR") or Path.home() / ".swanlab"
    folders = (Path.cwd() / ".swanlab", Path(home))
    return bool(os.environ.get("SWANLAB_API_KEY")) or any((f / ".netrc").is_file() for f in folders)


def open_logger(facts: RunFacts) -> SwanlabLogger:
    return SwanlabLogger(facts)
