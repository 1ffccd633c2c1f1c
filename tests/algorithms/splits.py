"""Stand-ins for data-parallel ranks: a thread each, and a sum that waits for all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor


def run_ranks(num_ranks: int, work: Callable[[int, Callable[[Tensor], Tensor]], Tensor]) -> list[Tensor]:
    """Result of `work(rank, reduce)` on each rank; `reduce` sums over the ranks, as all-reduce does."""
    slots: list[Tensor | None] = [None] * num_ranks
    barrier = threading.Barrier(num_ranks, timeout=20)

    def on_rank(rank: int) -> Tensor:
        def reduce(x: Tensor) -> Tensor:
            slots[rank] = x
            barrier.wait()
            total = sum(slots[1:], start=slots[0].clone())
            barrier.wait()
            return total

        return work(rank, reduce)

    with ThreadPoolExecutor(num_ranks) as pool:
        return list(pool.map(on_rank, range(num_ranks)))
