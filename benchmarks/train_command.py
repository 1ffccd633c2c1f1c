"""`bench train`: inference and optimizer steps, and how near they come to the machine's best."""

from __future__ import annotations

import argparse

from benchmarks.engine_options import add_workload_options, workload, write
from benchmarks.options import count
from realrl.apps.command_line import OK
from realrl.apps.tables import table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_workload_options(parser, prompts=8, group_size=1)
    parser.add_argument("--prompt-tokens", type=count, default=16, metavar="N")
    parser.add_argument("--tokens", type=count, default=512, metavar="N", help="of each sample in all")
    parser.add_argument("--microbatch-tokens", type=count, default=4096, metavar="N")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks.train import Settings, measure, render

    if arguments.prompt_tokens >= arguments.tokens:
        raise ValueError(
            f"--prompt-tokens must be below --tokens {arguments.tokens}, got {arguments.prompt_tokens}"
        )
    rows = measure(
        Settings(
            **workload(arguments),
            prompt_tokens=arguments.prompt_tokens,
            tokens=arguments.tokens,
            max_tokens_per_microbatch=arguments.microbatch_tokens,
        )
    )
    write(rows, table(render(rows), numbers=True), as_json=arguments.json)
    return OK
