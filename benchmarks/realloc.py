"""Moves a model between layouts by every method in turn, on real processes of this machine."""

from __future__ import annotations

import gc
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.context import Context, Scratch
from benchmarks.methods import METHODS, UNVERIFIED, Method, floor_of
from benchmarks.pieces import lower_bound
from benchmarks.report import Row
from benchmarks.workload import DTYPES, Pair, differing, fill, make_locals

_POLL_S = 0.2
_POISON = 0x5A


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how."""

    pairs: tuple[Pair, ...]
    methods: tuple[str, ...]
    dtype: str
    workers: int
    rounds: int
    staging_bytes: int
    device: str


def measure(settings: Settings) -> Iterator[list[Row]]:
    """The rows of each pair, as soon as it is done.

    Raises:
        ProcessException: a worker failed, or a method left something else in the target than it should.
    """
    with tempfile.TemporaryDirectory(prefix="realrl-bench-") as folder:
        found = Path(folder) / "rows"
        found.touch()
        context = mp.spawn(_work, (settings, Path(folder)), nprocs=settings.workers, join=False)
        try:
            with found.open("rb") as lines:
                done = False
                while not done:
                    done = context.join(timeout=_POLL_S)
                    yield from (msgspec.json.decode(line, type=list[Row]) for line in _whole_lines(lines))
        finally:
            for process in context.processes:
                process.kill()
                process.join()


def _whole_lines(file) -> Iterator[bytes]:
    while True:
        begin = file.tell()
        line = file.readline()
        if not line.endswith(b"\n"):
            file.seek(begin)
            return
        yield line


def _work(rank: int, settings: Settings, folder: Path) -> None:
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // settings.workers))
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    device = _device(settings, rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    store = dist.FileStore(str(folder / "store"), settings.workers)
    dist.init_process_group(backend, store=store, rank=rank, world_size=settings.workers)
    try:
        dist.all_reduce(torch.zeros(1, device=device))
        scratch = Scratch(device)
        with torch.no_grad(), (folder / "rows").open("ab") as out:
            for pair in settings.pairs:
                rows = _measure_pair(_context(pair, settings, rank, scratch, folder), settings)
                if rank == 0:
                    out.write(msgspec.json.encode(rows) + b"\n")
                    out.flush()
                gc.collect()
    finally:
        dist.destroy_process_group()


def _device(settings: Settings, rank: int) -> torch.device:
    if settings.device == "cpu":
        return torch.device("cpu")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)


def _context(pair: Pair, settings: Settings, rank: int, scratch: Scratch, folder: Path) -> Context:
    dtype, device = DTYPES[settings.dtype], scratch.device
    source, target = (make_locals(p, pair.decoder, rank, dtype, device) for p in (pair.source, pair.target))
    fill(source)
    group = dist.new_group(list(pair.ranks))
    return Context(pair, rank, source, target, dtype, settings.staging_bytes, group, scratch, folder)


def _measure_pair(context: Context, settings: Settings) -> list[Row]:
    methods: dict[str, Method] = {name: METHODS[name](context) for name in settings.methods}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    peaks = {name: _warm_up(context, name, method) for name, method in methods.items()}
    for _ in range(settings.rounds):
        for name, method in methods.items():
            seconds[name].append(_timed(context, method))
    medians = {name: median(times) for name, times in seconds.items()}
    needed = lower_bound(*context.layouts) * context.dtype.itemsize
    return [
        Row(
            pair=context.pair.name,
            method=name,
            seconds=medians[name],
            seconds_floor=medians[floor_of(name)] if needed else 0.0,
            bytes_moved=method.bytes_moved,
            bytes_lower_bound=needed,
            peak_staging_bytes=peaks[name],
        )
        for name, method in methods.items()
    ]


def _warm_up(context: Context, name: str, method: Method) -> int:
    """Run once, check what came out, and find the most room that a rank needed for messages."""
    context.scratch.peak_bytes = 0
    context.target.flat.buffer.view(torch.uint8).fill_(_POISON)
    _timed(context, method)
    if name not in UNVERIFIED and (wrong := differing(context.target)):
        raise RuntimeError(f"{name}, {context.pair.name}: rank {context.rank} has wrong bits in {wrong[0]}")
    return int(_largest(context.scratch.peak_bytes + method.staging_bytes))


def _timed(context: Context, method: Method) -> float:
    """Seconds until the last rank is done."""
    _largest(0.0)
    begin_s = time.perf_counter()
    method.run()
    if context.scratch.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = _largest(time.perf_counter() - begin_s)
    method.clean()
    return seconds


def _largest(value: float) -> float:
    """Over all workers; also a barrier."""
    shared = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.item()


def with_floors(methods: Sequence[str]) -> tuple[str, ...]:
    """The methods and the floors that their times are compared with, in the report's order."""
    wanted = {*methods, *map(floor_of, methods)}
    return tuple(name for name in METHODS if name in wanted)
