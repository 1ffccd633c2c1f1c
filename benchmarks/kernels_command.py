"""`bench boxes`, `bench attention`, `bench logprobs`: kernels beside the machine's best."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from benchmarks.options import check_device, count, say_machine
from realrl.apps.command_line import OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=count, default=5, metavar="N")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from benchmarks.report import json_line

    kernels = import_module(f"benchmarks.{arguments.benchmark}")
    check_device(arguments.device, 1)
    say_machine(as_json=arguments.json)
    rows = kernels.measure(torch.device(arguments.device), arguments.rounds)
    sys.stdout.write(
        "".join(json_line(row) + "\n" for row in rows) if arguments.json else kernels.render(rows)
    )
    return OK
