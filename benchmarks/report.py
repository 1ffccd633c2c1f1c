"""The measured figures as JSON lines or as a table, and the machine that they are from."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from realrl.apps.tables import table

_MEMCPY_BYTES = 256 << 20


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One method on one pair."""

    pair: str
    method: str
    seconds: float
    """Median over the rounds; each is as long as its slowest rank."""
    seconds_floor: float
    """Of the bare transport with the same bytes; 0 where nothing must move."""
    bytes_moved: int
    """Between ranks, all together."""
    bytes_lower_bound: int
    """What ranks want and lack, from the layouts alone."""
    peak_staging_bytes: int
    """The most that a rank keeps beside its source and target."""


def json_line(row: Row) -> str:
    return msgspec.json.encode(row).decode()


def pair_table(rows: Sequence[Row]) -> str:
    """The methods of one pair."""
    lower = rows[0].bytes_lower_bound
    lines = [
        ("method", "seconds", "GB moved", "÷ lower bound", "staging MiB", "time ÷ floor"),
        *(
            (
                row.method,
                f"{row.seconds:.4f}",
                f"{row.bytes_moved / 1e9:.3f}",
                ratio(row.bytes_moved, row.bytes_lower_bound),
                f"{row.peak_staging_bytes / 2**20:.1f}",
                ratio(row.seconds, row.seconds_floor),
            )
            for row in rows
        ),
    ]
    return f"{rows[0].pair}   (must move {lower / 1e9:.3f} GB)\n{table(lines, numbers=True, indent='  ')}\n"


def ratio(value: float, unit: float) -> str:
    return f"{value / unit:.2f}" if unit else "-"


def machine() -> str:
    """The machine in one line."""
    cores = len(os.sched_getaffinity(0))
    memcpy = f"memcpy {_memcpy_bytes_s() / 1e9:.1f} GB/s on one thread"
    accelerator = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_cpu_model()}, {cores} cores{accelerator}, torch {torch.__version__}, {memcpy}"


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown CPU")


def _memcpy_bytes_s() -> float:
    """The best of a few copies into pages that are there already."""
    a, b = (np.ones(_MEMCPY_BYTES, dtype=np.uint8) for _ in range(2))
    times = []
    for _ in range(3):
        begin_s = time.perf_counter()
        np.copyto(b, a)
        times.append(time.perf_counter() - begin_s)
    return _MEMCPY_BYTES / min(times)
