"""Metrics to MLflow: the server of MLFLOW_TRACKING_URI, else a SQLite file in the run's folder `mlflow`.

MLFLOW_EXPERIMENT_NAME comes before the config's experiment.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from realrl.runtime.loggers.interface import RunFacts, numbers_of

_TAG = "realrl.run_id"
"""By which a resumed run finds its MLflow run."""
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
"""As many as MLflow takes in one request."""
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
        experiment = self._experiment(facts, artifacts=(folder / "artifacts").as_uri() if is_ours else None)
        self._run = self._earlier_run(experiment, facts) or self._new_run(experiment, facts)
        self.where = f"`mlflow ui --backend-store-uri {address}` shows it" if is_ours else address

    def _experiment(self, facts: RunFacts, artifacts: str | None) -> str:
        """The id of the experiment, which is made if it is not there."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", facts.experiment)
        if found := self._client.get_experiment_by_name(name):
            return found.experiment_id
        return self._client.create_experiment(name, artifact_location=artifacts)

    def _earlier_run(self, experiment: str, facts: RunFacts) -> str | None:
        if not facts.continues:
            return None
        runs = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{facts.run_id}'", max_results=1)
        for run in runs:
            self._client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id
        return None

    def _new_run(self, experiment: str, facts: RunFacts) -> str:
        from mlflow.entities import Param

        made = self._client.create_run(experiment, run_name=facts.trial, tags={_TAG: facts.run_id})
        params = [Param(_key(key), str(value)[:_MAX_PARAM]) for key, value in facts.config.items()]
        for some in _parts(params, _PARAMS_AT_ONCE):
            self._client.log_batch(made.info.run_id, params=some)
        return made.info.run_id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(_key(name), value, now_ms, step) for name, value in scalars.items()]
        for some in _parts(metrics, _METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=some)

    def finish(self, summary: Mapping[str, Any] | None, failure: str | None) -> None:
        if summary is not None:
            numbers = {f"summary/{name}": value for name, value in numbers_of(summary).items()}
            self.log(int(summary.get("num_steps", 0)), numbers)
        if failure is not None:
            self._client.set_tag(self._run, "failure", failure)
        self._client.set_terminated(self._run, "FINISHED" if failure is None else "FAILED")


def _key(name: str) -> str:
    """A name of the characters that MLflow accepts."""
    return re.sub(r"[^0-9A-Za-z_.:/ -]", "-", name)


def _parts(items: list[T], size: int) -> Iterator[list[T]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def open_logger(facts: RunFacts) -> MlflowLogger:
    return MlflowLogger(facts)
