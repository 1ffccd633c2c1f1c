"""`bench control`: the master, with workers that are simulated."""

from __future__ import annotations

import argparse

from benchmarks.options import add_crowd, count, say_machine
from realrl.apps.command_line import OK
from realrl.apps.tables import table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_crowd(parser)
    parser.add_argument("--steps", type=count, default=20, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.0, metavar="S", help="that each call takes")
    parser.add_argument("--processes", type=count, default=2, metavar="N", help="that host the workers")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks.control import Settings, measure
    from benchmarks.report import json_line

    say_machine(as_json=arguments.json)
    rows = []
    for workers in arguments.workers:
        settings = Settings(
            workers=workers,
            steps=arguments.steps,
            seconds=arguments.seconds,
            group_size=arguments.group_size,
            allocation=arguments.allocation,
            processes=min(arguments.processes, workers),
        )
        rows.append(measure(settings))
    print("\n".join(map(json_line, rows)) if arguments.json else _rendered(rows), flush=True)
    return OK


def _rendered(rows) -> str:
    heads = (
        "workers",
        "start s",
        "steps/s",
        "instructions",
        "reports",
        "p50 ms",
        "p99 ms",
        "master",
        "µs a report",
    )
    lines = [heads, *map(_line, rows)]
    what = f"{rows[0].seconds_a_call:g} s a call; instructions and reports of a step; dispatch latency"
    return f"{what}\n{table(lines, numbers=True, indent='  ')}".rstrip("\n")


def _line(row) -> tuple[str, ...]:
    return (
        f"{row.workers}",
        f"{row.start_s:.2f}",
        f"{row.steps_per_s:.3f}",
        f"{row.instructions_a_step:.1f}",
        f"{row.reports_a_step:.0f}",
        *(f"{1e3 * s:.1f}" for s in (row.dispatch_p50_s, row.dispatch_p99_s)),
        f"{row.master_share:.1%}",
        f"{1e6 * row.report_s:.0f}",
    )
