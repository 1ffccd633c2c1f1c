"""What a run says of itself: warnings in its metrics, its summary and its logs, and notes at its start."""

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
"""The logger of what is said of a run at its start."""
_OF_PYTHON = "py.warnings"
"""The logger of Python's warnings: a package is about to change, which is nothing about the run."""
_LEVELS = {"INFO": "note", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}
MOST_NOTES = 300


class Notes:
    """Notes without repetition, each with how often and where it was said."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], dict[str, Any]] = {}
        self._num_left_out = 0

    def add(self, level: str, text: str, where: str, step: int | None = None) -> None:
        # Numbers differ from one time to the next: 12 s, then 13 s.
        key = (level, re.sub(r"\d+", "0", text))
        if key not in self._found and len(self._found) == MOST_NOTES:
            self._num_left_out += 1
            return
        note = self._found.setdefault(key, {"level": level, "text": clipped(text), "where": [], "times": 0})
        note["times"] += 1
        if where not in note["where"]:
            note["where"].append(where)
        if step is not None:
            note.setdefault("step", step)
            note["last_step"] = step

    def all(self) -> list[dict[str, Any]]:
        """Errors first, then warnings."""
        order = ("error", "warning", "note")
        notes = sorted(self._found.values(), key=lambda note: order.index(note["level"]))
        if self._num_left_out:
            text = f"{self._num_left_out} further lines are left out"
            notes.append({"level": "note", "text": text, "where": ["report"], "times": 1})
        return notes


def add_from_metrics(notes: Notes, metrics: Metrics, summary: Mapping[str, Any]) -> None:
    """Their `warnings`, which are texts, or objects with a text."""
    for rows in metrics.rows.values():
        for row in rows:
            for text in _texts(row.get("warnings")):
                notes.add("warning", text, "metrics", row["step"])
    for text in _texts(summary.get("warnings")):
        notes.add("warning", text, "summary")


def _texts(warnings: Any) -> Iterator[str]:
    if isinstance(warnings, Mapping):
        yield from (f"{name}: {text}" for name, text in warnings.items())
    elif isinstance(warnings, list):
        for warning in warnings:
            yield ": ".join(map(str, warning.values())) if isinstance(warning, Mapping) else str(warning)
    elif isinstance(warnings, str):
        yield warnings


def add_from_logs(notes: Notes, folder: Path) -> None:
    """Warnings and errors of every log, and what the master said at the start."""
    for path in sorted(folder.glob("*.log")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                found = _LINE.match(line)
                if found and (found["level"] != "INFO" or found["logger"] == _SAYS_NOTES):
                    level = "note" if found["logger"] == _OF_PYTHON else _LEVELS[found["level"]]
                    notes.add(level, found["text"], path.name)
