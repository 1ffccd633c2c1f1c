"""Collects a run's warnings from its metrics, summary and logs, and the notes at its start."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from realrl.apps.report.metrics import Metrics
from realrl.apps.report.rollouts import clipped

_LINE = re.compile(
    r"\S+ \S+ (?P<level>INFO|WARNING|ERROR|CRITICAL) \[(?P<rank>.*?)\] (?P<logger>\S+): (?P<text>.*)"
)
_SAYS_NOTES = "realrl.runtime.run"
"""The logger of notes at a run's start."""
_OF_PYTHON = "py.warnings"
"""The logger of Python's warnings: they announce changes of a package, and do not concern the run."""
_LEVELS = {"INFO": "note", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}
MOST_NOTES = 300


class Notes:
    """Notes without repetition, each with the number of times and the places where it was found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}
        self._num_left_out = 0

    def add(self, level: str, text: str, where: str, step: int | None = None) -> None:
        """Add a text that was found in the file `where`, at a step if it says so."""
        # Numbers differ from one time to the next: 12 s, then 13 s.
        without_numbers = re.sub(r"\d+", "0", text)
        key = (level, without_numbers)
        if key not in self._found:
            if len(self._found) == MOST_NOTES:
                self._num_left_out += 1
                return
            self._found[key] = _note(level, clipped(text))
        note = self._found[key]
        note["times"] += 1
        if where not in note["where"]:
            note["where"].append(where)
        if step is not None:
            note.setdefault("step", step)
            note["last_step"] = step

    def all(self) -> list[dict[str, Any]]:
        """Return all notes: errors first, then warnings."""
        order = ("error", "warning", "note")
        notes = sorted(self._found.values(), key=lambda note: order.index(note["level"]))
        if self._num_left_out:
            last = _note("note", f"{self._num_left_out} further lines are left out")
            last["where"] = ["report"]
            last["times"] = 1
            notes.append(last)
        return notes


def _note(level: str, text: str) -> dict[str, Any]:
    """Return a note that was not found anywhere yet."""
    return {
        "level": level,
        "text": text,
        "where": [],
        "times": 0,
    }


def add_from_metrics(notes: Notes, metrics: Metrics, summary: Mapping[str, Any]) -> None:
    """Add the `warnings` of metrics and summary, which are texts, or objects with a text."""
    for rows in metrics.rows.values():
        for row in rows:
            for text in _texts(row.get("warnings")):
                notes.add("warning", text, "metrics", row["step"])
    for text in _texts(summary.get("warnings")):
        notes.add("warning", text, "summary")


def _texts(warnings: Any) -> Iterator[str]:
    """Yield the texts of warnings in any form."""
    if isinstance(warnings, Mapping):
        for name, text in warnings.items():
            yield f"{name}: {text}"
    elif isinstance(warnings, list):
        for warning in warnings:
            parts = warning.values() if isinstance(warning, Mapping) else [warning]
            yield ": ".join(map(str, parts))
    elif isinstance(warnings, str):
        yield warnings


def add_from_logs(notes: Notes, folder: Path) -> None:
    """Add the warnings and errors of every log, and the master's notes at the start."""
    for path in sorted(folder.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                found = _LINE.match(line)
                if not found:
                    continue
                level = _level(found["level"], found["logger"])
                if level:
                    notes.add(level, found["text"], path.name)


def _level(level: str, logger: str) -> str:
    """Return the level of a line of a log in the report; empty for a line that is left out."""
    if level == "INFO" and logger != _SAYS_NOTES:
        return ""
    if logger == _OF_PYTHON:
        return "note"
    return _LEVELS[level]
