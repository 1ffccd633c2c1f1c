"""`bench train`: inference and optimizer steps, and how near they come to the machine's best."""

from __future__ import annotations

import argparse
import sys

from realrl.apps.benchmarks.engine_options import add_model_options, open_model
from realrl.apps.benchmarks.options import count
from realrl.apps.command_line import OK
from realrl.apps.tables import table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--prompts", type=count, default=8, metavar="N")
    parser.add_argument("--group-size", type=count, default=1, metavar="N", help="samples of each prompt")
    parser.add_argument("--prompt-tokens", type=count, default=16, metavar="N")
    parser.add_argument("--tokens", type=count, default=512, metavar="N", help="of each sample in all")
    parser.add_argument("--microbatch-tokens", type=count, default=4096, metavar="N")


def run(arguments: argparse.Namespace) -> int:
    from realrl.apps.benchmarks.report import json_line
    from realrl.apps.benchmarks.train import Settings, measure, render

    if arguments.prompt_tokens >= arguments.tokens:
        raise ValueError(
            f"--prompt-tokens must be below --tokens {arguments.tokens}, got {arguments.prompt_tokens}"
        )
    rows = measure(
        Settings(
            model=open_model(arguments),
            dtype=arguments.dtype,
            device=arguments.device,
            num_prompts=arguments.prompts,
            group_size=arguments.group_size,
            prompt_tokens=arguments.prompt_tokens,
            tokens=arguments.tokens,
            max_tokens_per_microbatch=arguments.microbatch_tokens,
            rounds=arguments.rounds,
        )
    )
    text = (
        "".join(json_line(row) + "\n" for row in rows)
        if arguments.json
        else table(render(rows), numbers=True)
    )
    sys.stdout.write(text)
    return OK
