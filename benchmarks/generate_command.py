"""`bench generate`: tokens a second, alone or beside another system."""

from __future__ import annotations

import argparse

from benchmarks.engine_options import add_workload_options, workload, write
from benchmarks.options import count
from realrl.apps.command_line import OK
from realrl.apps.tables import table


def add_options(parser: argparse.ArgumentParser) -> None:
    add_workload_options(parser, prompts=4, group_size=8)
    parser.add_argument("--prompt-tokens", type=count, default=32, metavar="N", help="about; they are ragged")
    parser.add_argument("--new-tokens", type=count, default=64, metavar="N", help="of each sample")
    parser.add_argument("--cache-mib", type=count, default=4096, metavar="MIB", help="for keys and values")
    parser.add_argument(
        "--against", choices=["transformers", "vllm"], help="another system, in turn with ours"
    )


def run(arguments: argparse.Namespace) -> int:
    from benchmarks.generate import Settings, measure

    settings = Settings(
        **workload(arguments),
        prompt_tokens=arguments.prompt_tokens,
        new_tokens=arguments.new_tokens,
        cache_mib=arguments.cache_mib,
        against=arguments.against,
    )
    rows = list(measure(settings))
    write(rows, _rendered(rows), as_json=arguments.json)
    return OK


def _rendered(rows) -> str:
    lines = [("system", "seconds", "tokens/s", "prefill s", "÷ roofline", "MFU", "memory MiB", "ratio")]
    for row in rows:
        figures = (row.seconds, row.tokens_per_s, row.prefill_s, row.roofline, row.mfu)
        cells = ["" if figure is None else f"{figure:.4g}" for figure in figures]
        ratio = f"{row.ratio:.2f} ({row.ratio_least:.2f} to {row.ratio_largest:.2f})" if row.ratio else ""
        lines.append((row.system, *cells, f"{row.peak_memory_bytes >> 20}", ratio))
    return table(lines, numbers=True)
