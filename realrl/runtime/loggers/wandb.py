"""Logs metrics to Weights & Biases; offline, to the run's folder `wandb`, if nobody is logged in.

wandb's own variables override realrl's choices: WANDB_MODE, WANDB_PROJECT, WANDB_NAME, WANDB_RUN_ID,
WANDB_DIR.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from realrl.runtime.loggers.interface import RunFacts, plain_name, summary_scalars

_STEP = "step"
"""Our step, which is a metric and the x-axis: wandb's own cannot go back, as that of a resumed run does."""


class WandbLogger:
    """One wandb run; a resumed run keeps its id."""

    def __init__(self, facts: RunFacts) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True)
        server = wandb.setup().settings.base_url
        mode = "online" if _is_logged_in(server) else "offline"
        options = {
            "WANDB_PROJECT": ("project", plain_name(facts.experiment)),
            "WANDB_NAME": ("name", facts.trial),
            "WANDB_RUN_ID": ("id", facts.run_id),
            "WANDB_DIR": ("dir", facts.directory),
            "WANDB_MODE": ("mode", mode),
        }
        chosen: dict[str, Any] = {}
        for variable, (name, value) in options.items():
            if variable not in os.environ:
                chosen[name] = value
        self._run = wandb.init(config=facts.config, resume="allow", settings=settings, **chosen)
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)
        folder = os.path.dirname(self._run.dir)
        self.where = self._run.url or f"offline: `wandb sync {folder}` uploads it"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""
        self._run.log({**scalars, _STEP: step})

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record how the run ended."""
        for name, value in summary_scalars(summary or {}).items():
            self._run.summary[name] = value
        if failure is not None:
            self._run.summary["failure"] = failure
        self._run.finish(exit_code=0 if failure is None else 1)


def _is_logged_in(address: str) -> bool:
    """Return whether there is a key, which wandb would otherwise ask for on a terminal."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = os.path.expanduser(os.environ.get("NETRC", "~/.netrc"))
    host = urlparse(address).hostname or ""
    try:
        keys = netrc.netrc(path)
    except (OSError, netrc.NetrcParseError):
        return False
    return keys.authenticators(host) is not None


def open_logger(facts: RunFacts) -> WandbLogger:
    """Open the logger of a run."""
    return WandbLogger(facts)
