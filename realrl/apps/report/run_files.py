"""Reads the data of a report from a run's directory; it writes nothing, and the run may still be running."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from realrl.apps.report.lines import JsonLines
from realrl.apps.report.metrics import Metrics, curves, phases, read_metrics
from realrl.apps.report.notes import Notes, add_from_logs, add_from_metrics
from realrl.apps.report.rollouts import distributions, read_rollouts, samples
from realrl.apps.report.settings import changed, read_settings
from realrl.apps.report.timeline import drawn, read_timeline
from realrl.apps.status import find_trouble
from realrl.runtime.run_files import CONFIG, LOGS, METRICS, RECORDS, SUMMARY, TRACE
from realrl.runtime.watch.status import STATUS, Status


def is_run(directory: Path) -> bool:
    """Return whether a directory holds anything to report on."""
    files = [directory / name for name in (CONFIG, METRICS, STATUS)]
    return any(map(Path.is_file, files))


def read_run(directory: Path, most_samples: int) -> dict[str, Any]:
    """Return everything that the page shows of a run."""
    notes = Notes()
    metrics = read_metrics(JsonLines(directory / METRICS))
    rollouts = read_rollouts(directory / RECORDS[metrics.main_kind], metrics)
    settings, settings_notes = read_settings(directory)
    summary = _read_summary(directory / SUMMARY)
    for text in (*metrics.notes, *rollouts.notes, *settings_notes):
        notes.add("warning", text, "report")
    add_from_metrics(notes, metrics, summary)
    add_from_logs(notes, directory / LOGS)
    state = _state(directory, metrics, settings, summary)
    if state["failure"]:
        notes.add("error", state["failure"], "status")
    return {
        "name": _name(directory, settings),
        "directory": str(directory.resolve()),
        "recipe": settings.get("recipe"),
        **state,
        "main_kind": metrics.main_kind,
        "curves": curves(metrics),
        "phases": phases(metrics),
        "timeline": drawn(read_timeline(directory / TRACE)),
        "distributions": distributions(rollouts),
        "num_samples": len(rollouts),
        "samples": samples(rollouts, most_samples),
        "settings": settings,
        "changed": changed(settings),
        "notes": notes.all(),
    }


def _name(directory: Path, settings: Mapping[str, Any]) -> str:
    """Return the experiment and the directory's name, which a later run of the trial may have changed."""
    path = directory.resolve()
    experiment = settings.get("experiment", path.parent.name)
    return f"{experiment}/{path.name}"


def _read_summary(path: Path) -> dict[str, Any]:
    """Return the summary of a run; empty if it cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_status(path: Path) -> Status | None:
    """Return the status of a run, or None if it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError):
        return None


def _state(
    directory: Path, metrics: Metrics, settings: Mapping[str, Any], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how far a run is.

    Its state is `ended`, `running`, `failed`, `stopped` (its master is gone without a word), or `unknown`.
    """
    status = _read_status(directory / STATUS)
    rows = metrics.rows.get(metrics.main_kind, ())
    found = {
        "state": "unknown",
        "failure": "",
        "num_done": rows[-1]["step"] + 1 if rows else 0,
        "num_steps": settings.get("num_steps") or (status.num_steps if status else None),
        "began_s": status.began_s if status else None,
        "lasted_s": summary.get("wall_s"),
    }
    if status is not None and not status.is_over:
        # A summary is then that of an earlier part of a run that was resumed.
        return found | _unfinished(status, time.time())
    if summary:
        return found | {"state": "ended"}
    if status is None:
        return found
    lasted_s = status.phase_since_s - status.began_s
    return found | {"state": "failed", "failure": status.phase, "lasted_s": lasted_s}


def _unfinished(status: Status, now_s: float) -> dict[str, Any]:
    """Return the state of a run that is not over: whether it still has a master."""
    trouble = find_trouble(status, now_s)
    if not trouble:
        return {"state": "running", "lasted_s": now_s - status.began_s}
    return {
        "state": "stopped",
        "failure": trouble,
        "lasted_s": status.written_s - status.began_s,
    }
