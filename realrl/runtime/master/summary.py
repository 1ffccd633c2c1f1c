"""The result of a run: the numbers of `summary.json` and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from realrl.api.evals import HELD_OUT
from realrl.api.recipe import Metrics, joined
from realrl.base.clock import clock
from realrl.base.terminal import printable
from realrl.runtime.master.display import SHOWN, is_of_samples, number
from realrl.runtime.master.job_report import Outcome, values

_WIDEST = 20_000
"""A number of columns: more than two paths of the longest kind."""


class Summary:
    """Gathers a run's numbers, job by job: of its first and last step if it trains, else over all."""

    def __init__(self, began_s: float, *, trains: bool = True) -> None:
        """`began_s` is on the monotonic clock."""
        self._began_s = began_s
        self._trains = trains
        self._evals: dict[str, list[Mapping[str, float]]] = {}
        """The metrics of each evaluation, by set."""
        self._first: Mapping[str, float] = {}
        """Metrics of the first step."""
        self._last: Mapping[str, float] = {}
        self._whole: Metrics = {}
        """Metrics over all steps."""
        self._phases_s: dict[str, float] = {}
        self._num_steps = 0
        self._num_tokens = 0
        self._duration_s = 0.0

    def add(self, outcome: Outcome) -> None:
        """Take in a step or an evaluation: one that just ended, or one from an earlier start's records."""
        if outcome.evaluating:
            self._evals.setdefault(outcome.eval_set, []).append(outcome.metrics)
            return
        self._whole = joined(self._whole, outcome.parts)
        self._last = outcome.metrics
        self._first = self._first or self._last
        self._num_steps += 1
        self._num_tokens += outcome.num_tokens
        self._duration_s += outcome.duration_s
        for name, seconds in outcome.phases_s.items():
            self._phases_s[name] = self._phases_s.get(name, 0.0) + seconds

    def means(self) -> dict[str, float]:
        """Return each metric over all steps so far."""
        return values(self._whole)

    def result(self, **facts: Any) -> dict[str, Any]:
        """Return the content of `summary.json`: `facts`, and what was gathered."""
        numbers = self._ends() if self._trains else {"mean": self.means()}
        phases_s = {name: seconds / self._num_steps for name, seconds in self._phases_s.items()}
        return {
            **facts,
            "num_steps": self._num_steps,
            **numbers,
            "tokens_per_s": self._num_tokens / self._duration_s if self._duration_s else 0.0,
            "phases_s": phases_s,
            "wall_s": time.monotonic() - self._began_s,
        }

    def _ends(self) -> dict[str, Any]:
        """Return the metrics of the first and the last evaluation, and of the first and the last step."""
        evals = {}
        for name, metrics in self._evals.items():
            evals[name] = {"before": metrics[0], "after": metrics[-1]}
        held_out = evals.pop(HELD_OUT, {})
        of_sets = {"evals": evals} if evals else {}
        train = {}
        for name, last in self._last.items():
            if name in self._first:
                train[name] = {"first": self._first[name], "last": last}
        return {"eval": held_out, **of_sets, "train": train}


def print_summary(summary: dict[str, Any], console: Console | None = None) -> None:
    """Print a run's numbers, before and after if it trained, and where its time went."""
    table = Table(title=_cell(f"{summary['experiment']}/{summary['trial']}"), show_header=False)
    # Paths are to be copied: what does not fit a line is continued in the next one.
    for _ in ("name", "value"):
        table.add_column(overflow="fold")
    for name, value in _lines(summary):
        table.add_row(_cell(name), _cell(value))
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, _width(table, console))
    console.print(table)
    for line in summary.get("warnings", ()):
        console.print(_cell(f"warning: over the whole run, {line}"), soft_wrap=True)


def _lines(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each line of the table: a name, and a number or a path."""
    yield from _metric_lines(summary)
    yield "tokens/s", number(summary["tokens_per_s"])
    for name, seconds in summary["phases_s"].items():
        if name != "forget":  # housekeeping of the data plane
            yield f"time in {name}, s a step", number(seconds)
    yield "time since the start", clock(summary["wall_s"])

    for name in ("checkpoint", "generations"):
        if name in summary:
            yield name, summary[name]
    best = summary.get("best", {})
    if best.get("checkpoint"):
        yield "best checkpoint", best["checkpoint"]


def _metric_lines(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a line for each metric that is shown: its mean, or its first and last value."""
    mean = summary.get("mean", {})
    for name in SHOWN:
        if name in mean:
            yield name, number(mean[name])

    evals = summary.get("eval", {})
    before = evals.get("before", {})
    after = evals.get("after", {})
    for name in SHOWN:
        if name in before and name in after:
            yield f"held-out {name}", _change(before[name], after[name])
    for eval_set, ends in summary.get("evals", {}).items():
        before = ends["before"]
        after = ends["after"]
        for name in after:
            if name in before and (name in SHOWN or is_of_samples(name)):
                yield f"{eval_set} {name}", _change(before[name], after[name])

    for name, ends in summary.get("train", {}).items():
        if name in SHOWN:
            yield f"{name}, first -> last step", _change(ends["first"], ends["last"])


def _change(first: float, last: float) -> str:
    return f"{number(first)} -> {number(last)}"


def _cell(text: str) -> Text:
    """Return text that is shown as it is: brackets in it are not markup."""
    return Text(printable(text))


def _width(table: Table, console: Console) -> int:
    """Return the columns of the whole table: in a file or a log it is not cut to a terminal's width."""
    options = console.options.update_width(_WIDEST)
    return Measurement.get(console, options, table).maximum
