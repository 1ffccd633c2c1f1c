"""Gradients summed over data-parallel ranks while the last backward passes run.

    flat gradients | embedding | layer 0 | layer 1 | layer 2 | head | norms, biases |
    their owners   |  rank 0        |    rank 1       |          rank 2            |
    backward                  <---- summed part by part -------------

The backward passes of the last micro-batch complete matrices from the buffer's end to its beginning. A part
of the buffer is some neighbouring matrices. Once it is complete, it is summed to the ranks that own it.
These sums do not overlap with computation, and begin after the last backward pass:

* the embedding, which is complete last
* norms and biases, which lie together, and are complete when the first layer is
* gradients that are also summed over stages (tied embeddings) or tensor-parallel ranks (shared K/V heads)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch.distributed as dist
from torch import Tensor

from realrl.parallel.groups import Groups
from realrl.parallel.zero_shards import Span

PART = 1 << 25
"""Elements of a part, or a tensor more: messages of 128 MiB have NCCL's full throughput."""


@dataclass
class Part:
    """Neighbouring tensors of the flat buffer."""

    start: int
    stop: int
    tensors: set[int] = field(default_factory=set)
    """Where they begin."""


def early_parts(spans: Mapping[str, Span], names: Collection[str]) -> list[Part]:
    """Parts of the tensors `names`, from the buffer's end to its beginning."""
    parts: list[Part] = []
    for start, stop in sorted((spans[name] for name in names), reverse=True):
        is_neighbour = bool(parts) and parts[-1].start == stop
        if not is_neighbour or parts[-1].stop - parts[-1].start >= PART:
            parts.append(Part(start, stop))
        parts[-1].start = start
        parts[-1].tensors.add(start)
    return parts


def gaps(parts: Collection[Part], length: int) -> list[Span]:
    """What lies in none of the parts."""
    taken = sorted((part.start, part.stop) for part in parts)
    edges = pairwise([(0, 0), *taken, (length, length)])
    return [(before[1], after[0]) for before, after in edges if before[1] < after[0]]


class EarlySums:
    """Sums each part of a flat buffer to the ranks that own it, in the same order on every rank."""

    def __init__(
        self, spans: Mapping[str, Span], names: Collection[str], length: int, groups: Groups
    ) -> None:
        """`names`: tensors that `finished` tells of; the others are summed by `finish`."""
        self._groups = groups
        self._parts = early_parts(spans, names)
        self._others = gaps(self._parts, length)
        self._begin()

    def _begin(self) -> None:
        self._num_sent = 0
        self._complete: set[int] = set()
        self._sums: list[dist.Work] = []

    def finished(self, start: int, buffer: Tensor) -> None:
        """Begin to sum the parts that are complete with the tensor at `start`."""
        self._complete.add(start)
        # NCCL wants one order on every rank: a part waits for those before it.
        while self._num_sent < len(self._parts) and self._parts[self._num_sent].tensors <= self._complete:
            part = self._parts[self._num_sent]
            self._sum(buffer, part.start, part.stop)
            self._num_sent += 1

    def finish(self, buffer: Tensor) -> None:
        """Sum what is left, and wait: a rank's own share is then the sum, and the others are of no use."""
        for part in self._parts[self._num_sent :]:
            self._sum(buffer, part.start, part.stop)
        for start, stop in self._others:
            self._sum(buffer, start, stop)
        for work in self._sums:
            work.wait()
        self._begin()

    def _sum(self, buffer: Tensor, start: int, stop: int) -> None:
        """Begin to sum `[start, stop)`, each owner's part to its owner."""
        placement = self._groups.placement
        place = self._groups.place
        size = len(buffer) // placement.layout.dp
        first_owner = start // size
        last_owner = (stop - 1) // size
        for owner in range(first_owner, last_owner + 1):
            low = max(start, owner * size)
            high = min(stop, (owner + 1) * size)
            rank = placement.rank(pp_rank=place.pp_rank, dp_rank=owner, tp_rank=place.tp_rank)
            work = dist.reduce(buffer[low:high], rank, group=self._groups.dp, async_op=True)
            self._sums.append(work)
