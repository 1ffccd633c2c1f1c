"""How full micro-batches are, and how even data-parallel shares, for the lengths of rollouts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from math import ceil
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.lengths import made_lengths, read_lengths
from realrl.apps.tables import table
from realrl.ops.packing import (
    first_fit_decreasing,
    first_fit_decreasing_reference,
    karmarkar_karp,
    karmarkar_karp_reference,
)
from realrl.parallel.microbatch import microbatches
from realrl.program.balance import assign

NUM_SAMPLES = (1_000, 10_000, 100_000)
DPS = (2, 8, 64)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Some lengths, and how long their packing takes."""

    lengths: str
    """Where they are from."""
    num_samples: int
    num_tokens: int
    cpp_s: float
    """Of the kernels: the median over the rounds."""
    python_s: float
    """Of their twins, once."""


class Packed(Row, frozen=True, kw_only=True, tag="microbatches"):
    """Micro-batches of a token budget; times are those of first-fit and of differencing into as many."""

    max_tokens: int
    num_microbatches: int
    fewest: int
    """No packing has fewer: the tokens over the budget, rounded up."""
    efficiency: float
    """Tokens over the room of the micro-batches."""
    in_order_efficiency: float
    """The same if samples are taken in order until the budget is reached."""
    imbalance: float
    """The largest micro-batch over the mean."""


class Shared(Row, frozen=True, kw_only=True, tag="shares"):
    """A batch shared out over data-parallel ranks."""

    dp: int
    imbalance: float
    """The most loaded rank over the mean."""
    longest_first_imbalance: float
    """The same if the longest sample goes to the least loaded rank, and so on."""


Batch = tuple[str, list[int]]
"""Lengths, and where they are from."""


def batches(path: Path | None, budgets: Sequence[int]) -> list[Batch]:
    """The file's own, and of other sizes drawn from it with replacement; without a file, made ones.

    Raises:
        ValueError: a file as in `read_lengths`, or a budget below the longest length.
    """
    if path is None:
        found = [("log-normal", made_lengths(n)) for n in NUM_SAMPLES]
    else:
        own = read_lengths(path)
        drawn = [(f"drawn from {path.name}", random.Random(n).choices(own, k=n)) for n in NUM_SAMPLES]
        found = [(path.name, own), *drawn]
    longest = max(max(lengths) for _, lengths in found)
    if min(budgets) < longest:
        raise ValueError(f"--budgets: expected at least the longest length, {longest}, got {min(budgets)}")
    return found


def measure(batches: Sequence[Batch], budgets: Sequence[int], rounds: int) -> Iterator[list[Row]]:
    """For each batch, the rows of every budget, then those of every degree of data parallelism."""
    for name, lengths in batches:
        yield [_packed(name, lengths, max_tokens, rounds) for max_tokens in budgets]
        yield [_shared(name, lengths, dp, rounds) for dp in DPS]


def render(rows: Sequence[Row]) -> str:
    """As a table."""
    cells = [_packed_cells(row) if isinstance(row, Packed) else _shared_cells(row) for row in rows]
    title = f"{rows[0].lengths}: {rows[0].num_samples} samples, {rows[0].num_tokens} tokens"
    return (
        f"{title}\n{table([tuple(cells[0]), *(tuple(c.values()) for c in cells)], numbers=True, indent='  ')}"
    )


def _packed_cells(row: Packed) -> dict[str, str]:
    return {
        "budget": str(row.max_tokens),
        "micro-batches": str(row.num_microbatches),
        "fewest": str(row.fewest),
        "efficiency": f"{row.efficiency:.2%}",
        "in order": f"{row.in_order_efficiency:.2%}",
        "max ÷ mean": f"{row.imbalance:.4f}",
        **_times(row),
    }


def _shared_cells(row: Shared) -> dict[str, str]:
    return {
        "dp": str(row.dp),
        "max ÷ mean": f"{row.imbalance:.6f}",
        "longest first": f"{row.longest_first_imbalance:.6f}",
        **_times(row),
    }


def _times(row: Row) -> dict[str, str]:
    return {"C++ ms": f"{row.cpp_s * 1e3:.2f}", "Python ms": f"{row.python_s * 1e3:.2f}"}


def _packed(name: str, lengths: list[int], max_tokens: int, rounds: int) -> Packed:
    micros = microbatches(lengths, max_tokens)

    def pack(first_fit: Callable, differencing: Callable) -> None:
        differencing(lengths, len(first_fit(lengths, max_tokens)))

    return Packed(
        **_common(name, lengths),
        cpp_s=_seconds(lambda: pack(first_fit_decreasing, karmarkar_karp), rounds),
        python_s=_seconds(lambda: pack(first_fit_decreasing_reference, karmarkar_karp_reference), 1),
        max_tokens=max_tokens,
        num_microbatches=len(micros),
        fewest=ceil(sum(lengths) / max_tokens),
        efficiency=sum(lengths) / (len(micros) * max_tokens),
        in_order_efficiency=sum(lengths) / (_num_in_order(lengths, max_tokens) * max_tokens),
        imbalance=max(sum(lengths[i] for i in members) for members in micros) * len(micros) / sum(lengths),
    )


def _shared(name: str, lengths: list[int], dp: int, rounds: int) -> Shared:
    return Shared(
        **_common(name, lengths),
        cpp_s=_seconds(lambda: karmarkar_karp(lengths, dp), rounds),
        python_s=_seconds(lambda: karmarkar_karp_reference(lengths, dp), 1),
        dp=dp,
        imbalance=_imbalance(lengths, assign(lengths, dp), dp),
        longest_first_imbalance=_imbalance(lengths, _longest_first(lengths, dp), dp),
    )


def _common(name: str, lengths: list[int]) -> dict:
    return {"lengths": name, "num_samples": len(lengths), "num_tokens": sum(lengths)}


def _imbalance(lengths: Sequence[int], dp_ranks: Sequence[int], dp: int) -> float:
    loads = [0] * dp
    for length, dp_rank in zip(lengths, dp_ranks, strict=True):
        loads[dp_rank] += length
    return max(loads) * dp / sum(lengths)


def _longest_first(lengths: Sequence[int], dp: int) -> list[int]:
    """Source: longest processing time first, Graham 1969."""
    loads, dp_ranks = [(0, dp_rank) for dp_rank in range(dp)], [0] * len(lengths)
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        load, dp_ranks[item] = heappop(loads)
        heappush(loads, (load + lengths[item], dp_ranks[item]))
    return dp_ranks


def _num_in_order(lengths: Sequence[int], max_tokens: int) -> int:
    number, room = 0, 0
    for length in lengths:
        if length > room:
            number, room = number + 1, max_tokens
        room -= length
    return number


def _seconds(run: Callable[[], None], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        begin_s = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin_s)
    return median(times)
