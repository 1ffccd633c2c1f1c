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

import torch.distributed as dist
from torch import Tensor

from realrl.base.waiting import wait_for_ranks
from realrl.parallel.groups import Groups
from realrl.parallel.zero_shards import Span

PART = 1 << 25
"""Least elements of a full part: messages of 128 MiB reach NCCL's full throughput."""


@dataclass
class Part:
    """Neighbouring tensors of the flat buffer: its elements `[start, stop)`."""

    start: int
    stop: int
    tensors: set[int] = field(default_factory=set)
    """The first element of each tensor."""


def early_parts(spans: Mapping[str, Span], names: Collection[str]) -> list[Part]:
    """Return the parts of the tensors `names`, from the buffer's end to its beginning."""
    chosen = [spans[name] for name in names]
    parts: list[Part] = []
    for start, stop in sorted(chosen, reverse=True):
        if parts and _takes(parts[-1], stop):
            part = parts[-1]
        else:
            part = Part(start, stop)
            parts.append(part)
        part.start = start
        part.tensors.add(start)
    return parts


def _takes(part: Part, stop: int) -> bool:
    """Whether a part is not full yet, and the tensor that ends at `stop` lies right before it."""
    is_neighbour = part.start == stop
    size = part.stop - part.start
    is_full = size >= PART
    return is_neighbour and not is_full


def gaps(parts: Collection[Part], length: int) -> list[Span]:
    """Return the spans of a buffer of `length` elements that lie in no part."""
    found: list[Span] = []
    end = 0
    for part in sorted(parts, key=lambda part: (part.start, part.stop)):
        if end < part.start:
            found.append((end, part.start))
        end = part.stop

    if end < length:
        found.append((end, length))
    return found


class EarlySums:
    """Sums each part of a flat buffer to the ranks that own it, in the same order on every rank."""

    def __init__(
        self, spans: Mapping[str, Span], names: Collection[str], length: int, groups: Groups
    ) -> None:
        """`names` are the tensors that `finished` is called for; `finish` sums all others.

        Each tensor has a span of the buffer, which has `length` elements.
        """
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
        # NCCL needs the same order on every rank: a part waits for those before it.
        while self._num_sent < len(self._parts):
            part = self._parts[self._num_sent]
            if not part.tensors <= self._complete:
                return
            self._sum(buffer, part.start, part.stop)
            self._num_sent += 1

    def finish(self, buffer: Tensor) -> None:
        """Sum the rest and wait for all sums.

        Afterwards, a rank's own share is the sum, and the other shares are useless.
        """
        for part in self._parts[self._num_sent :]:
            self._sum(buffer, part.start, part.stop)
        for start, stop in self._others:
            self._sum(buffer, start, stop)
        for work in self._sums:
            wait_for_ranks(work.wait)
        self._begin()

    def _sum(self, buffer: Tensor, start: int, stop: int) -> None:
        """Begin to sum the elements `[start, stop)`, each owner's part to its owner."""
        size = len(buffer) // self._groups.placement.layout.dp
        first_owner = start // size
        last_owner = (stop - 1) // size
        for owner in range(first_owner, last_owner + 1):
            low = max(start, owner * size)
            high = min(stop, (owner + 1) * size)
            work = wait_for_ranks(
                dist.reduce,
                buffer[low:high],
                self._rank_of(owner),
                group=self._groups.dp,
                async_op=True,
            )
            self._sums.append(work)

    def _rank_of(self, owner: int) -> int:
        """Return the global rank of a data-parallel rank of this rank's stage and shard."""
        place = self._groups.place
        return self._groups.placement.rank(
            pp_rank=place.pp_rank,
            dp_rank=owner,
            tp_rank=place.tp_rank,
        )
