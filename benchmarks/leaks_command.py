"""`bench leaks`: memory, files and threads of a run's processes over its steps."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.options import BenchmarkFailed, count, say_machine
from realrl.apps.command_line import OK
from realrl.apps.tables import table

_FEWEST_SAMPLES = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=count, default=200, metavar="N")
    parser.add_argument("--every", type=count, default=4, metavar="N", help="steps from sample to sample")
    parser.add_argument("--allocation", default="actor_gen:d2,*:p2", help="default: %(default)s")
    parser.add_argument("--recover-every", type=count, default=10, metavar="N")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw it, too")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks.leaks import measure, trends
    from benchmarks.plot import plot
    from benchmarks.report import json_line

    if arguments.steps < _FEWEST_SAMPLES * arguments.every:
        raise ValueError(f"--steps: expected at least {_FEWEST_SAMPLES} times --every, got {arguments.steps}")
    say_machine(as_json=arguments.json)
    samples = measure(arguments.steps, arguments.every, arguments.allocation, arguments.recover_every)
    found = trends(samples)
    if arguments.plot:
        arguments.plot.write_text(plot(samples))
    print("\n".join(map(json_line, found)) if arguments.json else _rendered(found), flush=True)
    if growing := [f"{trend.quantity} of {trend.role}" for trend in found if trend.grows]:
        raise BenchmarkFailed(f"with its steps a run takes more: {', '.join(growing)}")
    return OK


def _rendered(found) -> str:
    lines = [("process", "what", "first third", "last third", "a step", "grows")]
    for trend in found:
        figures = _figures(trend)
        lines.append((trend.role, *figures, "yes" if trend.grows else "no"))
    return table(lines, numbers=False).rstrip("\n")


def _figures(trend) -> tuple[str, ...]:
    if trend.quantity == "memory_bytes":
        return (
            "memory MiB",
            *(f"{value / 2**20:.1f}" for value in (trend.first, trend.last)),
            f"{trend.slope / 2**10:.2f} KiB",
        )
    return (trend.quantity, f"{trend.first:g}", f"{trend.last:g}", f"{trend.slope:g}")
