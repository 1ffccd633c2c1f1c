"""Options of the benchmarks that run a model in this process."""

from __future__ import annotations

import argparse
from pathlib import Path

from realrl.apps.benchmarks.options import check_device, count, say_machine

DEMO = "smollm2-135m-instruct"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    what = "a Hugging Face directory, or random-qwen2-1.5b (default: %(default)s)"
    parser.add_argument("--model", default=DEMO, help=what)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=count, metavar="N", help="of the CPU (default: one a core)")
    parser.add_argument("--rounds", type=count, default=3, metavar="N")


def open_model(arguments: argparse.Namespace) -> Path | str:
    """The model's directory, or a random one's name; PyTorch has the threads that were asked for.

    Raises:
        ValueError: no such model or device.
    """
    import os

    import torch

    from realrl.apps.benchmarks.alone import RANDOM
    from realrl.datasets.demo import resolve_model

    check_device(arguments.device, 1)
    try:
        model = arguments.model if arguments.model in RANDOM else resolve_model(arguments.model)
    except (OSError, ValueError) as error:
        raise ValueError(f"--model: {error}") from None
    torch.set_num_threads(arguments.threads or len(os.sched_getaffinity(0)))
    say_machine(as_json=arguments.json)
    return model
