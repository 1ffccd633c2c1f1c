"""Watches a run of a tiny model from outside: does what its processes take grow with its steps?"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from benchmarks.options import BenchmarkFailed
from benchmarks.processes import Usage, usage_by_role
from benchmarks.tiny import write_model, write_problems
from realrl.apps.command_line import OK
from realrl.runtime.run_files import METRICS

_LOOK_S = 0.02
_ALLOWED = 0.02
"""Of memory, how much more at the end is no growth: allocators keep what they once took."""
_WARM_UP = 0.25
"""Of the samples, those before caches are full."""

Samples = Mapping[int, Mapping[str, Usage]]
"""By step and role."""


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """How one quantity of one role went, after the warm-up."""

    role: str
    quantity: str
    first: float
    """In the first third: the median of memory, the least of what is counted."""
    last: float
    """The same in the last third."""
    slope: float
    """A step, median over all pairs of samples."""
    grows: bool


def measure(steps: int, every: int, allocation: str, recover_every: int) -> Samples:
    """A whole run, looked at each `every` steps.

    Raises:
        BenchmarkFailed: the run did.
    """
    with TemporaryDirectory() as name:
        directory = Path(name)
        write_model(directory / "model")
        write_problems(directory / "problems.jsonl", 24)
        command = list(_command(directory, steps, allocation, recover_every))
        with (directory / "output.log").open("w") as output:
            run = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            samples = dict(_samples(run, directory / "runs" / "ppo-math" / "trial" / METRICS, every))
        finally:
            run.terminate()
            run.wait()
        if run.returncode != OK:
            raise BenchmarkFailed(f"the run failed:\n{(directory / 'output.log').read_text()[-2000:]}")
        return samples


def _command(directory: Path, steps: int, allocation: str, recover_every: int) -> Iterator[str]:
    """Two models change their layouts in each step, and answers are graded."""
    yield from (sys.executable, "-m", "realrl.apps.quickstart", "ppo-math")
    overrides = {
        "actor.model.path": directory / "model",
        "actor.model.dtype": "float32",
        "actor.optimizer.lr": 1e-4,
        "critic.model.path": directory / "model",
        "critic.model.dtype": "float32",
        "data.path": directory / "problems.jsonl",
        "data.template": "plain",
        "num_steps": steps,
        "batch_size": 4,
        "ppo.group_size": 2,
        "ppo.kl_coef": 0.05,
        "generation.max_new_tokens": 8,
        "recover_every": recover_every,
        "allocation": allocation,
        "runs_dir": directory / "runs",
    }
    yield from (f"{key}={value}" for key, value in overrides.items())


def _samples(run: subprocess.Popen, metrics: Path, every: int) -> Iterator[tuple[int, dict[str, Usage]]]:
    """Whenever so many steps more are done."""
    due = every
    while run.poll() is None:
        done = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if done >= due:
            yield done, usage_by_role(run.pid)
            due = (done // every + 1) * every
        time.sleep(_LOOK_S)


def trends(samples: Samples) -> list[Trend]:
    """Of every role that is there from the warm-up's end to the last sample."""
    steps = sorted(samples)[round(_WARM_UP * len(samples)) : -1]  # at the last, some may have ended
    roles = [role for role in samples[steps[0]] if all(role in samples[step] for step in steps)]
    return [
        trend(role, quantity, steps, [getattr(samples[step][role], quantity) for step in steps])
        for role in roles
        for quantity in Usage._fields
    ]


def trend(role: str, quantity: str, steps: Sequence[int], values: Sequence[float]) -> Trend:
    """Memory by the median of slopes, which single peaks do not change (Theil 1950; Sen 1968).

    Files, threads and processes by the least of them: some are open for a part of each step, and what leaks
    is there all the time.
    """
    third = len(steps) // 3
    slope = median(
        (values[j] - values[i]) / (steps[j] - steps[i]) for i, j in combinations(range(len(steps)), 2)
    )
    is_memory = quantity == "memory_bytes"
    typical = median if is_memory else min
    first, last = typical(values[:third]), typical(values[-third:])
    grown = slope * (steps[-1] - steps[0])
    grows = grown > _ALLOWED * first if is_memory else last > first
    return Trend(role=role, quantity=quantity, first=first, last=last, slope=slope, grows=grows)
