"""Logs metrics to MLflow: to the server of MLFLOW_TRACKING_URI, else to a SQLite file in the run's `mlflow`.

MLFLOW_EXPERIMENT_NAME overrides the config's experiment.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from realrl.runtime.loggers.interface import RunFacts, summary_scalars

_TAG = "realrl.run_id"
"""The tag by which a resumed run finds its MLflow run."""
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
"""The most of each that MLflow takes in one request."""
_MAX_PARAM = 6000
"""Characters of a parameter's value."""

T = TypeVar("T")


class MlflowLogger:
    """One MLflow run; a resumed run continues it."""

    def __init__(self, facts: RunFacts) -> None:
        from mlflow.tracking import MlflowClient

        folder = Path(facts.directory).resolve() / "mlflow"
        address = os.environ.get("MLFLOW_TRACKING_URI")
        if not address:
            folder.mkdir(parents=True, exist_ok=True)
            address = f"sqlite:///{folder / 'mlflow.db'}"
        is_ours = address.startswith(f"sqlite:///{folder}")
        self._client = MlflowClient(tracking_uri=address)
        artifacts = folder / "artifacts"
        experiment = self._experiment(facts, artifacts.as_uri() if is_ours else None)
        self._run = self._earlier_run(experiment, facts) or self._new_run(experiment, facts)
        self.where = f"`mlflow ui --backend-store-uri {address}` shows it" if is_ours else address

    def _experiment(self, facts: RunFacts, artifacts: str | None) -> str:
        """Return the id of the experiment, which is made if it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", facts.experiment)
        found = self._client.get_experiment_by_name(name)
        if found:
            return found.experiment_id
        return self._client.create_experiment(name, artifact_location=artifacts)

    def _earlier_run(self, experiment: str, facts: RunFacts) -> str | None:
        """Return the id of the run that is resumed, marked as running, if MLflow has it."""
        if not facts.continues:
            return None
        query = f"tags.`{_TAG}` = '{facts.run_id}'"
        runs = self._client.search_runs([experiment], query, max_results=1)
        for run in runs:
            run_id = run.info.run_id
            self._client.update_run(run_id, status="RUNNING")
            return run_id
        return None

    def _new_run(self, experiment: str, facts: RunFacts) -> str:
        """Return the id of a new run, which has the config's settings as parameters."""
        from mlflow.entities import Param

        made = self._client.create_run(experiment, run_name=facts.trial, tags={_TAG: facts.run_id})
        run_id = made.info.run_id
        params = []
        for key, value in facts.config.items():
            text = str(value)
            params.append(Param(_key(key), text[:_MAX_PARAM]))
        for part in _parts(params, _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=part)
        return run_id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Record the numbers of one step or evaluation."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(_key(name), value, now_ms, step) for name, value in scalars.items()]
        for part in _parts(metrics, _METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=part)

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        """Record how the run ended."""
        if summary is not None:
            last_step = int(summary.get("num_steps", 0))
            self.log(last_step, summary_scalars(summary))
        if failure is not None:
            self._client.set_tag(self._run, "failure", failure)
        status = "FINISHED" if failure is None else "FAILED"
        self._client.set_terminated(self._run, status)


def _key(name: str) -> str:
    """Return a name of the characters that MLflow accepts."""
    return re.sub(r"[^0-9A-Za-z_.:/ -]", "-", name)


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    """Yield items in parts of at most `size`."""
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def open_logger(facts: RunFacts) -> MlflowLogger:
    """Open the logger of a run."""
    return MlflowLogger(facts)
