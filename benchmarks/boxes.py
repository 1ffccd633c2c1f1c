"""Times the kernels that pack boxes of weights into messages and unpack them, beside a large memcpy.

Weights lie in memory, far larger than any cache; the message is used again and again, as in a transfer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import product
from statistics import median

import msgspec
import torch
from torch import Tensor

from realrl.apps.tables import table
from realrl.ops.box_copies import Boxes, pack, unpack
from realrl.ops.box_rows import ALIGNMENT

_ROWS, _COLUMNS = 2048, 8192
_MEMCPY_BYTES = 256 << 20
_SLICES = {"whole rows": None, "2048 of 8192 columns": 2048, "144 of 576 columns": 144}
_DTYPES = (torch.float32, torch.bfloat16)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel on one kind of boxes."""

    boxes: str
    dtype: str
    message_bytes: int
    kernel: str
    gb_s: float
    """Median over the rounds, of the message's bytes."""
    memcpy_gb_s: float


def measure(device: torch.device, rounds: int) -> list[Row]:
    """Every kernel in turn, round after round, on one thread."""
    torch.set_num_threads(1)
    jobs = dict(_jobs(device))
    memcpy = _memcpy(device)
    rates: dict[tuple, list[float]] = {name: [] for name in jobs}
    memcpy_rates = []
    for _ in range(rounds):
        memcpy_rates.append(_rate(memcpy, _MEMCPY_BYTES, device))
        for name, (run, num_bytes) in jobs.items():
            rates[name].append(_rate(run, num_bytes, device))
    base = median(memcpy_rates)
    return [
        Row(
            boxes=kind,
            dtype=str(dtype).removeprefix("torch."),
            message_bytes=size,
            kernel=kernel,
            gb_s=median(rates[kind, dtype, size, kernel]),
            memcpy_gb_s=base,
        )
        for kind, dtype, size, kernel in jobs
    ]


def render(rows: Sequence[Row]) -> str:
    """As a table, each rate beside the memcpy's."""
    lines = [("boxes", "dtype", "message", "kernel", "GB/s", "÷ memcpy")]
    for row in rows:
        share = f"{row.gb_s / row.memcpy_gb_s:.2f}"
        size = f"{row.message_bytes >> 10} KiB"
        lines.append((row.boxes, row.dtype, size, row.kernel, f"{row.gb_s:.1f}", share))
    memcpy = f"memcpy of {_MEMCPY_BYTES >> 20} MiB: {rows[0].memcpy_gb_s:.1f} GB/s"
    return f"{memcpy}\n\n{table(lines, numbers=True, indent='  ')}"


def _jobs(device: torch.device):
    for (kind, columns), dtype, size in product(_SLICES.items(), _DTYPES, (1 << 20, 4 << 20)):
        views = _views(columns, dtype, size, device)
        boxes = [Boxes([view], [0], [dtype]) for view in views]
        num_bytes = sum(one.num_bytes for one in boxes)
        message = torch.zeros(-(-size // ALIGNMENT) * ALIGNMENT, dtype=torch.uint8, device=device)
        total = torch.zeros(1, dtype=torch.int64, device=device)
        for name, kernel in (("pack", pack), ("unpack", unpack)):
            for suffix, checksum in (("", None), (" + checksum", total)):
                yield (kind, dtype, size, name + suffix), (_all(kernel, boxes, message, checksum), num_bytes)


def _all(kernel: Callable, boxes: Sequence[Boxes], message: Tensor, checksum: Tensor | None) -> Callable:
    def run() -> None:
        for one in boxes:
            kernel(one, message[: one.num_bytes], checksum)

    return run


def _views(columns: int | None, dtype: torch.dtype, size: int, device: torch.device) -> list[Tensor]:
    """Boxes of about `size` bytes each, 128 MiB of tensors in all."""
    width = _COLUMNS if columns is None else columns * 4
    columns = columns or width
    height = size // (columns * dtype.itemsize)
    weights = torch.ones((128 << 20) // (width * dtype.itemsize), width, dtype=dtype, device=device)
    starts = range(0, len(weights) - height + 1, height)
    return [weights[a : a + height, c : c + columns] for a in starts for c in range(0, width, columns)]


def _memcpy(device: torch.device) -> Callable:
    a, b = (torch.ones(_MEMCPY_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    return lambda: b.copy_(a)


def _rate(run: Callable, num_bytes: int, device: torch.device) -> float:
    """GB/s."""
    _synchronise(device)
    begin_s = time.perf_counter()
    run()
    _synchronise(device)
    return num_bytes / (time.perf_counter() - begin_s) / 1e9


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
