"""`bench adversary`: answers that nobody would write, put to the verifier to find where it can be fooled."""

from __future__ import annotations

import argparse

from benchmarks.options import BenchmarkFailed, count, say_machine
from realrl.apps.command_line import OK

NUM_ANSWERS = 20_000
NUM_PAIRS = 5_000


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--answers", type=count, default=NUM_ANSWERS, metavar="N", help=f"to search; {NUM_ANSWERS} by default"
    )
    parser.add_argument(
        "--pairs", type=count, default=NUM_PAIRS, metavar="N", help=f"to judge twice; {NUM_PAIRS} by default"
    )
    parser.add_argument("--seed", type=int, default=1, help="which answers are drawn; 1 by default")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks import adversary
    from benchmarks.report import json_line

    say_machine(as_json=arguments.json)
    found = adversary.search(arguments.answers, arguments.seed)
    print(json_line(found) if arguments.json else f"\n{adversary.render_search(found)}", flush=True)
    repeated = adversary.repeat(arguments.pairs, arguments.seed)
    print(json_line(repeated) if arguments.json else f"\n{adversary.render_repeated(repeated)}", flush=True)
    num_faults = sum(found.num_faults.values()) + repeated.num_faults
    if num_faults:
        raise BenchmarkFailed(f"the verifier has faults: {num_faults} (seed {arguments.seed})")
    return OK
