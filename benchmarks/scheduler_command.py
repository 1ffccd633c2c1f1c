"""`bench scheduler`: the scheduler alone, a pure function."""

from __future__ import annotations

import argparse

from benchmarks.options import add_crowd, count, say_machine
from realrl.apps.command_line import OK
from realrl.apps.tables import table

_REPORTS_A_STEP = 12
"""Of a rank, about."""


def add_options(parser: argparse.ArgumentParser) -> None:
    add_crowd(parser)
    parser.add_argument("--events", type=count, default=25_000, metavar="N", help="about how many")
    parser.add_argument("--staleness", type=int, default=0, metavar="N", help="max_staleness of the run")
    parser.add_argument("--rounds", type=count, default=3, metavar="N")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks.report import json_line
    from benchmarks.scheduling import Settings, measure

    say_machine(as_json=arguments.json)
    rows = []
    for workers in arguments.workers:
        settings = Settings(
            workers=workers,
            steps=max(2, arguments.events // (_REPORTS_A_STEP * workers)),
            group_size=arguments.group_size,
            allocation=arguments.allocation,
            max_staleness=arguments.staleness,
        )
        rows.append(measure(settings, arguments.rounds))
    print("\n".join(map(json_line, rows)) if arguments.json else _rendered(rows), flush=True)
    return OK


def _rendered(rows) -> str:
    lines = [("workers", "staleness", "events", "instructions", "seconds", "events a minute")]
    for row in rows:
        numbers = (f"{row.workers}", f"{row.max_staleness}", f"{row.events}", f"{row.instructions}")
        lines.append((*numbers, f"{row.seconds:.3f}", f"{row.events_per_min:,.0f}"))
    return table(lines, numbers=True).rstrip("\n")
