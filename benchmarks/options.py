"""What the options of several benchmarks have in common; nothing here imports torch before it must."""

from __future__ import annotations

import argparse
import sys


class BenchmarkFailed(RuntimeError):
    """What a person is told instead of figures."""


def count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1 << 30:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    return [count(part.strip()) for part in text.split(",")]


def rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"expected GB/s above 0, got {text!r}")
    return number


def check_device(device: str, workers: int) -> None:
    import torch

    if device == "cuda" and (num_gpus := torch.cuda.device_count()) < workers:
        raise ValueError(
            f"--device: {workers} workers need as many GPUs, this machine has {num_gpus}; lower --workers"
        )


def say_machine(*, as_json: bool) -> None:
    """The machine in one line, out of the way of JSON."""
    from benchmarks.report import machine

    print(machine(), file=sys.stderr if as_json else sys.stdout, flush=True)


def add_crowd(parser: argparse.ArgumentParser) -> None:
    """What is run on simulated workers."""
    parser.add_argument("--workers", type=counts, default="8,64,512", metavar="N,N")
    parser.add_argument("--group-size", type=count, default=4, metavar="N", help="samples; a prompt a worker")
    parser.add_argument("--allocation", default="", help="default: all generate, and train as p2dNt2")
