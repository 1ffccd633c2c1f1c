"""A data-parallel rank's share of flat tensors, as boxes of the global tensors.

flat buffer   | matrix 0 | matrix 1       | vector |     local tensors, end to end
shares        |  dp rank 0     |  dp rank 1        |
blocks        | matrix 0 | ... | ...      | vector |     boxes of local tensors, contiguous in a share
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from realrl.base.waiting import wait_for_ranks
from realrl.layouts.boxes import boxes_of_range
from realrl.layouts.layout import Box, Layout, Rank, Shape, Shard
from realrl.parallel.groups import Groups

Span = tuple[int, int]
"""Elements [start, stop) of a flat buffer."""


@dataclass(frozen=True)
class Block:
    """A box of a local tensor that is contiguous in the share, from element `start` on."""

    name: str
    local: str
    offset: Shape
    shape: Shape
    start: int

    def of(self, share: Tensor) -> Tensor:
        """Return the block as a view of the share's buffer."""
        stop = self.start + math.prod(self.shape)
        return share[self.start : stop].view(self.shape)


def share_of(length: int, groups: Groups) -> Span:
    """Return this rank's share of a flat buffer, which data-parallel ranks divide evenly."""
    size = length // groups.placement.layout.dp
    start = groups.place.dp_rank * size
    return start, start + size


def gather(buffer: Tensor, groups: Groups) -> None:
    """Fill a flat buffer with every rank's share of it.

    Collective: over the data-parallel ranks.
    """
    if groups.dp is not None:
        start, stop = share_of(len(buffer), groups)
        share = buffer[start:stop]
        wait_for_ranks(dist.all_gather_into_tensor, buffer, share.clone(), group=groups.dp)


def blocks_of(spans: Mapping[str, Span], shapes: Mapping[str, Shape], share: Span) -> Iterator[Block]:
    """Yield the blocks of a share of local tensors that lie end to end at `spans`."""
    share_start, share_stop = share
    for local, (start, stop) in spans.items():
        low = max(start, share_start)
        high = min(stop, share_stop)
        boxes = boxes_of_range(
            shapes[local],
            low - start,
            high - start,
        )
        place = low - share_start
        for index, (offset, shape) in enumerate(boxes):
            yield Block(
                f"{local}/{index}",
                local,
                offset,
                shape,
                start=place,
            )
            place += math.prod(shape)


def shards_of(blocks: Iterable[Block], layout: Layout, rank: Rank) -> Iterator[Shard]:
    """Yield the boxes of a rank's `layout` that its blocks hold; the blocks are the local tensors."""
    blocks_by_local: dict[str, list[Block]] = defaultdict(list)
    for block in blocks:
        blocks_by_local[block.local].append(block)
    for shard in layout.shards(rank):
        for block in blocks_by_local[shard.local]:
            found = _within(shard, block)
            if found is not None:
                yield found


def _within(shard: Shard, block: Block) -> Shard | None:
    """Return the part of a shard that lies in the block, as a shard of the block, if there is one."""
    start: list[int] = []
    stop: list[int] = []
    offset: list[int] = []
    for dim, size in enumerate(shard.box.shape):
        # Positions in the local tensor, in which both the shard and the block lie.
        shard_low = shard.offset[dim]
        shard_high = shard_low + size
        block_low = block.offset[dim]
        block_high = block_low + block.shape[dim]

        low = max(shard_low, block_low)
        high = min(shard_high, block_high)
        if low >= high:
            return None

        to_global = shard.box.start[dim] - shard_low
        start.append(low + to_global)
        stop.append(high + to_global)
        offset.append(low - block_low)

    box = Box(shard.box.tensor, tuple(start), tuple(stop))
    return Shard(shard.rank, box, block.name, tuple(offset))
