"""Metrics to Weights & Biases; offline, in the run's folder `wandb`, where nobody is logged in.

wandb's own variables come first: WANDB_MODE, WANDB_PROJECT, WANDB_NAME, WANDB_RUN_ID, WANDB_DIR.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlparse

from realrl.runtime.loggers.interface import RunFacts, numbers_of, plain_name

_STEP = "step"
"""wandb's own step cannot go back, as that of a resumed run does; so ours is a metric and the x-axis."""


class WandbLogger:
    """One wandb run; a resumed run continues under its id."""

    def __init__(self, facts: RunFacts) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True)
        options = {
            "WANDB_PROJECT": ("project", plain_name(facts.experiment)),
            "WANDB_NAME": ("name", facts.trial),
            "WANDB_RUN_ID": ("id", facts.run_id),
            "WANDB_DIR": ("dir", facts.directory),
            "WANDB_MODE": ("mode", "online" if _is_logged_in(wandb.setup().settings.base_url) else "offline"),
        }
        chosen = dict(option for variable, option in options.items() if variable not in os.environ)
        self._run = wandb.init(config=facts.config, resume="allow", settings=settings, **chosen)
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)
        self.where = self._run.url or f"offline: `wandb sync {os.path.dirname(self._run.dir)}` uploads it"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._run.log({**scalars, _STEP: step})

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        for name, value in numbers_of(summary or {}).items():
            self._run.summary[f"summary/{name}"] = value
        if failure is not None:
            self._run.summary["failure"] = failure
        self._run.finish(exit_code=0 if failure is None else 1)


def _is_logged_in(address: str) -> bool:
    """Whether there is a key, which wandb would otherwise ask for on a terminal."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = os.path.expanduser(os.environ.get("NETRC", "~/.netrc"))
    try:
        return netrc.netrc(path).authenticators(urlparse(address).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def open_logger(facts: RunFacts) -> WandbLogger:
    return WandbLogger(facts)
