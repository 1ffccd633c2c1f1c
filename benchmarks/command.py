"""Benchmarks: `python -m benchmarks NAME [--json] [options]`.

Exit codes: 0 done, 1 a benchmark failed, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from benchmarks.options import BenchmarkFailed
from realrl.apps.command_line import BAD_INPUT, FAILED, Parser, complain, run_command

KERNELS = {
    "boxes": "packing weights into messages",
    "attention": "attention over packed segments and over a paged cache",
    "logprobs": "log-probabilities of tokens from hidden states, and their gradient",
}
"""Kernels, each beside the machine's best; `benchmarks/NAME.py` times them."""

BENCHMARKS = {
    "step": "whole steps of group-relative PPO on sums, alone or beside another system",
    "generate": "tokens a second, alone or beside another system",
    "train": "inference and optimizer steps, and how near they come to the machine's best",
    "realloc": "moving a model's weights between layouts",
    "verifier": "grading of answers: how right, how fast, how safe",
    "adversary": "a search for answers that fool the verifier, and for verdicts that change",
    "packing": "micro-batches of rollouts, and their shares over data-parallel ranks",
    "control": "the master of a run, with hundreds of workers that are simulated",
    "scheduler": "the scheduler alone: events a minute of one core",
    "leaks": "memory, open files and threads of a run's processes over its steps",
    **KERNELS,
}
"""What each measures. `benchmarks/NAME_command.py` has its options and runs it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    try:
        parser = _parser()
        if not argv or argv[0] not in BENCHMARKS:
            parser.parse_args(list(argv[:1]))
        command = _command(argv[0])
        options = Parser(prog=f"benchmarks {argv[0]}", allow_abbrev=False, description=BENCHMARKS[argv[0]])
        options.set_defaults(benchmark=argv[0])
        options.add_argument("--json", action="store_true", help="one JSON object a line")
        command.add_options(options)
        return command.run(options.parse_args(list(argv[1:])))
    except ValueError as error:
        return complain(str(error), BAD_INPUT)
    except BenchmarkFailed as error:
        return complain(str(error), FAILED)


def _parser() -> Parser:
    listed = "; ".join(f"{name}: {what}" for name, what in BENCHMARKS.items())
    parser = Parser(prog="benchmarks", allow_abbrev=False, description=listed)
    parser.add_argument("benchmark", choices=list(BENCHMARKS))
    return parser


def _command(name: str) -> ModuleType:
    return import_module(f"benchmarks.{'kernels' if name in KERNELS else name}_command")
