"""Shows the progress of a run: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from realrl.base.clock import clock
from realrl.base.terminal import printable
from realrl.runtime.master.crew import Running
from realrl.runtime.master.job_report import Outcome

SHOWN = ("reward", "accuracy", "greedy_accuracy", "loss")
"""Metrics that are shown; all are recorded."""


_OF_SAMPLES = re.compile(r"(avg|pass|maj)@\d+")
"""Metrics of several answers to a problem."""


def is_of_samples(name: str) -> bool:
    """Return whether a metric is of several answers to a problem, such as avg@4; not an interval's end."""
    return _OF_SAMPLES.fullmatch(name) is not None


class Progress:
    """Prints what a run does. Use it as a context; while it is live, only it writes to the terminal."""

    def __init__(self, steps: range, console: Console | None = None) -> None:
        """`steps`: those that this start of the run makes."""
        self._steps = steps
        self._console = console or Console()
        self._is_live = self._console.is_terminal
        self._live = Live(console=self._console, transient=True)
        self._started_s = time.monotonic()
        self._first_step_s: float | None = None
        self._steps_done = steps.start
        self._last = ""
        """The numbers of the last step."""

    def __enter__(self) -> Progress:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, *_) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line, after the time since the start."""
        at = clock(time.monotonic() - self._started_s)
        say_line(f"{at}  {line}", self._console)

    def show_running(self, running: Sequence[Running]) -> None:
        """Show what the workers do just now, in the live line."""
        if not self._is_live:
            return
        distinct = dict.fromkeys(map(str, running))
        phase = " + ".join(distinct) or "waiting"
        left = ""
        if self._steps_done > self._steps.start:
            left = f"  left {clock(self._left_s())}"
        step = f"step {self._steps_done}/{self._steps.stop}"
        line = printable(f"{step}  {phase}{left}  {self._last}")
        text = Text(line, no_wrap=True, overflow="ellipsis")
        self._live.update(text)

    def show_job(self, outcome: Outcome) -> None:
        """Print a line for a step or an evaluation that has ended."""
        numbers = _numbers(outcome)
        if outcome.evaluating:
            on_set = "".join(f" on {name}" for name in outcome.shown_set.values())
            self.say(f"evaluation{on_set} at step {outcome.step}  {numbers}")
            return

        self._last = numbers
        self._steps_done = outcome.step + 1
        if self._first_step_s is None:
            self._first_step_s = time.monotonic() - outcome.duration_s
        self.say(f"step {self._steps_done}/{self._steps.stop}  {numbers}  left {clock(self._left_s())}")

    def _left_s(self) -> float:
        """Return the time left, in seconds, if each step takes as long as those that are done."""
        assert self._first_step_s is not None, "no step has ended, so the time left is not known"
        spent_s = time.monotonic() - self._first_step_s
        num_done = self._steps_done - self._steps.start
        num_left = self._steps.stop - self._steps_done
        return spent_s / num_done * num_left


def say_line(line: str, console: Console | None = None) -> None:
    """Print a line whole, whatever the terminal's width."""
    console = console or Console()
    text = Text(printable(line))
    console.print(text, soft_wrap=True)


def _numbers(outcome: Outcome) -> str:
    """Return the shown metrics of a job, its speed and its time."""
    shown: list[str] = []
    for name, value in outcome.metrics.items():
        if is_of_samples(name):
            shown.append(f"{name} {number(value)}")
    for name in SHOWN:
        if name in outcome.metrics:
            value = outcome.metrics[name]
            shown.append(f"{name} {number(value)}")
    shown.append(f"tokens/s {outcome.tokens_per_s:.0f}")
    shown.append(f"{outcome.duration_s:.1f} s")
    return "  ".join(shown)


def number(value: float) -> str:
    """Return a number with four digits."""
    return f"{value:.4g}"
