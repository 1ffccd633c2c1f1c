"""The curves and phases of a run, from its `metrics.jsonl`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from realrl.apps.report.encoding import floats, integers
from realrl.apps.report.lines import JsonLines

MOST_POINTS = 20_000
"""Points of a curve; a longer one is thinned to the means of neighbours."""
_NO_METRICS = frozenset(("step", "kind", "set", "weights", "phases_s", "warnings"))

Row = Mapping[str, Any]


class Metrics(NamedTuple):
    """The rows of a run by kind (`train`, `eval`, `eval/SET`, `pass`), each in the order of steps."""

    rows: Mapping[str, Sequence[Row]]
    notes: Sequence[str]
    """What a user should know of lines that are left out."""

    @property
    def main_kind(self) -> str:
        """The kind of the rows that are not evaluations."""
        return "pass" if "pass" in self.rows else "train"


def read_metrics(lines: JsonLines) -> Metrics:
    """Return every row that has a step and a kind."""
    rows: dict[str, list[Row]] = {}
    num_unfit = 0
    for _, row in lines:
        kind = kind_of(row.get("kind"), row.get("set"))
        if is_step(row.get("step")) and isinstance(kind, str):
            rows.setdefault(kind, []).append(row)
        else:
            num_unfit += 1
    notes = lines.notes()
    if num_unfit:
        notes.append(f"{lines.path.name}: {num_unfit} lines without a step or a kind are left out")
    for found in rows.values():
        found.sort(key=lambda row: row["step"])
    return Metrics(rows, notes)


def kind_of(kind: Any, eval_set: Any) -> Any:
    """Return the kind of a row or a rollout: that of an evaluation on a named set has the name in it."""
    return f"{kind}/{eval_set}" if isinstance(eval_set, str) and eval_set else kind


def is_step(value: Any) -> TypeGuard[int]:
    """Return whether a value is the number of a step, which the page holds in 32 bits."""
    return type(value) is int and 0 <= value < 2**31


def curves(metrics: Metrics) -> dict[str, Any]:
    """Return, by kind, the steps and every number that a row has, by name."""
    return {kind: _curves_of(rows) for kind, rows in metrics.rows.items()}


def _curves_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the curves of the rows of one kind; names without any number are left out."""
    columns = {}
    for name, values in _columns(rows).items():
        is_metric = name not in _NO_METRICS
        if is_metric and any(value is not None for value in values):
            columns[name] = values
    steps = [row["step"] for row in rows]
    return _packed_columns(steps, columns)


def phases(metrics: Metrics) -> dict[str, Any]:
    """Return the seconds of each phase in each step; evaluations are left out."""
    rows = metrics.rows.get(metrics.main_kind, ())
    columns = _columns([_phases_of(row) for row in rows])
    steps = [row["step"] for row in rows]
    return _packed_columns(steps, columns)


def _phases_of(row: Row) -> Mapping[str, Any]:
    """Return the phases of a row, if it has them."""
    found = row.get("phases_s")
    return found if isinstance(found, dict) else {}


def _columns(rows: Sequence[Row]) -> dict[str, list[float | None]]:
    """Return the numbers of every name in any row, in the order of the rows."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = {}
    for name in names:
        columns[name] = [number(row.get(name)) for row in rows]
    return columns


def _packed_columns(steps: Sequence[int], columns: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """Return columns as the page has them, thinned if they are long."""
    size = math.ceil(len(steps) / MOST_POINTS)
    series = {}
    for name, values in columns.items():
        series[name] = floats(values if size <= 1 else _means(values, size))
    return {
        "steps": integers(steps if size <= 1 else steps[::size]),
        "series": series,
        "each": max(size, 1),
    }


def _means(values: Sequence[float | None], size: int) -> list[float | None]:
    """Return the mean of each `size` neighbours; values without a number are left out."""
    means = []
    for begin in range(0, len(values), size):
        part = values[begin : begin + size]
        known = [value for value in part if value is not None]
        means.append(_mean(known))
    return means


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean, or None without any values."""
    if not values:
        return None
    return sum(values) / len(values)


def number(value: Any) -> float | None:
    """Return a value as a number, or None if it is not a number."""
    if isinstance(value, bool):
        return None
    return float(value) if isinstance(value, (int, float)) else None
