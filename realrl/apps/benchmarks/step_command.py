"""`bench step`: whole steps of group-relative PPO on sums, alone or beside another system."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from realrl.apps.benchmarks.engine_options import add_model_options, open_model
from realrl.apps.benchmarks.options import count
from realrl.apps.command_line import FAILED, OK, complain
from realrl.apps.tables import table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    parser.add_argument("--prompts", type=count, default=4, metavar="N", help="a step")
    parser.add_argument("--group-size", type=count, default=8, metavar="N", help="samples of each prompt")
    parser.add_argument("--new-tokens", type=count, default=14, metavar="N", help="of each sample")
    parser.add_argument("--ragged", action="store_true", help="samples may end earlier, as they do in a run")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--seed", type=count, default=1)
    parser.add_argument("--against", choices=["trl"], help="a system that takes turns")
    parser.add_argument("--peer-dtype", choices=["float32", "bfloat16"], default="float32")


def run(arguments: argparse.Namespace) -> int:
    from realrl.apps.benchmarks.peer import PeerFailed
    from realrl.apps.benchmarks.report import json_line
    from realrl.apps.benchmarks.step import Settings, measure

    model = open_model(arguments)
    if not isinstance(model, Path):
        raise ValueError(f"--model: steps need a tokenizer, {model} has none; give a directory")
    settings = Settings(
        model=model,
        dtype=arguments.dtype,
        peer_dtype=arguments.peer_dtype,
        device=arguments.device,
        num_prompts=arguments.prompts,
        group_size=arguments.group_size,
        new_tokens=arguments.new_tokens,
        fixed_length=not arguments.ragged,
        lr=arguments.lr,
        seed=arguments.seed,
        rounds=arguments.rounds,
        against=arguments.against,
    )
    try:
        rows = list(measure(settings))
    except PeerFailed as error:
        return complain(str(error), FAILED)
    lines = "".join(json_line(row) + "\n" for row in rows)
    sys.stdout.write(lines if arguments.json else _rendered(rows))
    return OK


def _rendered(rows) -> str:
    lines = [("system", "dtype", "seconds a step", "tokens/s", "memory MiB", "ratio")]
    for row in rows:
        ratio = f"{row.ratio:.2f} ({row.ratio_least:.2f} to {row.ratio_largest:.2f})" if row.ratio else ""
        figures = (f"{row.seconds:.3f}", f"{row.tokens_per_s:.1f}", f"{row.peak_memory_bytes >> 20}")
        lines.append((row.system, row.dtype, *figures, ratio))
    phases = "  ".join(f"{name} {seconds:.3f} s" for name, seconds in rows[-1].phases_s.items())
    rewards = "".join(f"{row.system}: rewards {' '.join(f'{r:.2f}' for r in row.rewards)}\n" for row in rows)
    return f"{table(lines, numbers=True)}ours: {phases}\n{rewards}"
