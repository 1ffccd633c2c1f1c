"""What the benchmarks that run a model in this process have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.options import check_device, count, say_machine

DEMO = "smollm2-135m-instruct"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model, and the samples that it runs on."""

    model: Path | str
    """A directory, or a random model's name."""
    dtype: str
    device: str
    num_prompts: int
    group_size: int
    rounds: int
    trace: Path | None
    """Where a trace of one more round goes."""

    @property
    def num_samples(self) -> int:
        return self.num_prompts * self.group_size


def add_workload_options(parser: argparse.ArgumentParser, *, prompts: int, group_size: int) -> None:
    what = "a Hugging Face directory, random-qwen2-1.5b, or random-tiny (default: %(default)s)"
    parser.add_argument("--model", default=DEMO, help=what)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=count, metavar="N", help="of the CPU (default: one a core)")
    parser.add_argument("--rounds", type=count, default=3, metavar="N")
    parser.add_argument("--prompts", type=count, default=prompts, metavar="N")
    parser.add_argument(
        "--group-size", type=count, default=group_size, metavar="N", help="samples of each prompt"
    )
    what = "write what the host and the device did in one more round, for chrome://tracing or ui.perfetto.dev"
    parser.add_argument("--trace", type=Path, metavar="FILE.json", help=what)


def workload(arguments: argparse.Namespace) -> dict[str, Any]:
    """A `Workload`'s fields; PyTorch has the threads that were asked for.

    Raises:
        ValueError: no such model or device.
    """
    return {
        "model": _open_model(arguments),
        "dtype": arguments.dtype,
        "device": arguments.device,
        "num_prompts": arguments.prompts,
        "group_size": arguments.group_size,
        "rounds": arguments.rounds,
        "trace": arguments.trace,
    }


def write(rows: Sequence[Any], rendered: str, *, as_json: bool) -> None:
    """What was measured, as JSON or as it is rendered."""
    from benchmarks.report import json_line

    sys.stdout.write("".join(json_line(row) + "\n" for row in rows) if as_json else rendered)


def _open_model(arguments: argparse.Namespace) -> Path | str:
    import os

    import torch

    from benchmarks.single_process import RANDOM
    from realrl.runtime.model_directories import resolve_model

    check_device(arguments.device, 1)
    try:
        model = arguments.model if arguments.model in RANDOM else resolve_model(arguments.model)
    except (OSError, ValueError) as error:
        raise ValueError(f"--model: {error}") from None
    torch.set_num_threads(arguments.threads or len(os.sched_getaffinity(0)))
    say_machine(as_json=arguments.json)
    return model
