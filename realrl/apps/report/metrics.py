"""The curves and phases of a run, from its `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from realrl.apps.report.encoding import floats, integers
from realrl.apps.report.lines import JsonLines

MOST_POINTS = 20_000
"""Of a curve; a longer one is thinned to the means of neighbours."""
_NO_METRICS = frozenset(("step", "kind", "weights", "phases_s", "warnings"))

Row = Mapping[str, Any]


class Metrics(NamedTuple):
    """The rows of a run by kind (`train`, `eval`, `pass`), each in the order of steps."""

    rows: Mapping[str, Sequence[Row]]
    notes: Sequence[str]
    """On lines that are left out."""

    @property
    def main_kind(self) -> str:
        """The kind of the rows that are not evaluations."""
        return "pass" if "pass" in self.rows else "train"


def read_metrics(lines: JsonLines) -> Metrics:
    """Every row that has a step and a kind."""
    rows: dict[str, list[Row]] = {}
    unfit = 0
    for _, row in lines:
        if is_step(row.get("step")) and isinstance(row.get("kind"), str):
            rows.setdefault(row["kind"], []).append(row)
        else:
            unfit += 1
    notes = lines.notes()
    if unfit:
        notes.append(f"{lines.path.name}: {unfit} lines without a step or a kind are left out")
    for found in rows.values():
        found.sort(key=lambda row: row["step"])
    return Metrics(rows, notes)


def is_step(value: Any) -> bool:
    """Whether a value is the number of a step, which the page holds in 32 bits."""
    return type(value) is int and 0 <= value < 2**31


def curves(metrics: Metrics) -> dict[str, Any]:
    """By kind: the steps, and every number that a row has, by name."""
    return {kind: _curves_of(rows) for kind, rows in metrics.rows.items()}


def _curves_of(rows: Sequence[Row]) -> dict[str, Any]:
    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_METRICS)
    columns = {name: [number(row.get(name)) for row in rows] for name in names}
    return _packed_columns([row["step"] for row in rows], {k: v for k, v in columns.items() if _is_any(v)})


def phases(metrics: Metrics) -> dict[str, Any]:
    """Seconds of each phase in each step; evaluations are left out."""
    rows = metrics.rows.get(metrics.main_kind, ())
    names = dict.fromkeys(name for row in rows for name in _phases_of(row))
    columns = {name: [number(_phases_of(row).get(name)) for row in rows] for name in names}
    return _packed_columns([row["step"] for row in rows], columns)


def _phases_of(row: Row) -> Mapping[str, Any]:
    found = row.get("phases_s")
    return found if isinstance(found, dict) else {}


def _packed_columns(steps: Sequence[int], columns: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    size = math.ceil(len(steps) / MOST_POINTS)
    if size > 1:
        steps = steps[::size]
        columns = {name: _means(values, size) for name, values in columns.items()}
    return {
        "steps": integers(steps),
        "series": {name: floats(values) for name, values in columns.items()},
        "each": max(size, 1),
    }


def _means(values: Sequence[float | None], size: int) -> list[float | None]:
    """Of each `size` neighbours, those without a number left out."""
    parts = (values[begin : begin + size] for begin in range(0, len(values), size))
    return [_mean([value for value in part if value is not None]) for part in parts]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def number(value: Any) -> float | None:
    """A value as a number; None where it is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_any(values: Sequence[float | None]) -> bool:
    return any(value is not None for value in values)
