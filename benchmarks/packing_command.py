"""`bench packing`: micro-batches and shares of rollouts."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.options import count, counts, say_machine
from realrl.apps.command_line import OK

DEFAULT_BUDGETS = "8192,16384,32768"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", type=Path, metavar="JSONL", help="rollouts, problems or lengths")
    parser.add_argument("--budgets", type=counts, default=DEFAULT_BUDGETS, metavar="N,N", help="of tokens")
    parser.add_argument("--rounds", type=count, default=5, metavar="N")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks import packing, report

    batches = packing.batches(arguments.file, arguments.budgets)
    say_machine(as_json=arguments.json)
    for rows in packing.measure(batches, arguments.budgets, arguments.rounds):
        text = "\n".join(map(report.json_line, rows)) if arguments.json else "\n" + packing.render(rows)
        print(text.rstrip("\n"), flush=True)
    return OK
