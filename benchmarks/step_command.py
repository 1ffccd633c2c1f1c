"""`bench step`: whole steps of group-relative PPO on sums, alone or beside another system."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.engine_options import add_workload_options, workload, write
from benchmarks.options import count
from realrl.apps.command_line import OK
from realrl.apps.tables import table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_workload_options(parser, prompts=4, group_size=8)
    parser.add_argument("--new-tokens", type=count, default=14, metavar="N", help="of each sample")
    parser.add_argument("--ragged", action="store_true", help="samples may end earlier, as they do in a run")
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--seed", type=count, default=1)
    parser.add_argument("--against", choices=["trl"], help="a system that takes turns")
    parser.add_argument("--peer-dtype", choices=["float32", "bfloat16"], default="float32")


def run(arguments: argparse.Namespace) -> int:
    from benchmarks.step import Settings, measure

    settings = Settings(
        **workload(arguments),
        peer_dtype=arguments.peer_dtype,
        new_tokens=arguments.new_tokens,
        fixed_length=not arguments.ragged,
        lr=arguments.lr,
        seed=arguments.seed,
        against=arguments.against,
    )
    if not isinstance(settings.model, Path):
        raise ValueError(f"--model: steps need a tokenizer, {settings.model} has none; give a directory")
    rows = list(measure(settings))
    write(rows, _rendered(rows), as_json=arguments.json)
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
