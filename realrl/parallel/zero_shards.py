"""A data-parallel rank's share of flat tensors: its boxes, and how ranks give each other theirs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor

from realrl.layouts.boxes import boxes_of_range
from realrl.layouts.layout import Box, Layout, Rank, Shape, Shard
from realrl.parallel.groups import Groups

Span = tuple[int, int]
"""Elements [start, stop) of a flat buffer."""


@dataclass(frozen=True)
class Block:
    """A box of a local tensor that lies in one piece in the share, from `start` on."""

    name: str
    local: str
    offset: Shape
    shape: Shape
    start: int

    def of(self, share: Tensor) -> Tensor:
        """As a view of the share's buffer."""
        return share[self.start : self.start + math.prod(self.shape)].view(self.shape)


def share_of(length: int, groups: Groups) -> Span:
    """This rank's share of a flat buffer, as all data-parallel ranks divide it evenly."""
    size = length // groups.placement.layout.dp
    return groups.place.dp_rank * size, (groups.place.dp_rank + 1) * size


def gather(buffer: Tensor, groups: Groups) -> None:
    """Fill a flat buffer with every rank's share of it. Collective over the data-parallel ranks."""
    if groups.dp is not None:
        share = buffer[slice(*share_of(len(buffer), groups))]
        dist.all_gather_into_tensor(buffer, share.clone(), group=groups.dp)


def blocks_of(spans: Mapping[str, Span], shapes: Mapping[str, Shape], share: Span) -> Iterator[Block]:
    """What a share of local tensors, laid end to end at `spans`, has of each."""
    for local, (start, stop) in spans.items():
        position = max(start, share[0])
        boxes = boxes_of_range(shapes[local], position - start, min(stop, share[1]) - start)
        for index, (offset, shape) in enumerate(boxes):
            yield Block(f"{local}/{index}", local, offset, shape, position - share[0])
            position += math.prod(shape)


def shards_of(blocks: Iterator[Block], layout: Layout, rank: Rank) -> Iterator[Shard]:
    """The boxes of a rank's `layout` that its blocks hold, which are the local tensors now."""
    of_local = defaultdict(list)
    for block in blocks:
        of_local[block.local].append(block)
    for shard in layout.shards(rank):
        for block in of_local[shard.local]:
            if found := _within(shard, block):
                yield found


def _within(shard: Shard, block: Block) -> Shard | None:
    """Return the part of a shard that lies in the block, as a shard of the block, if there is one."""
    box_shape = shard.box.shape
    start: list[int] = []
    stop: list[int] = []
    offset: list[int] = []
    for dim in range(len(box_shape)):
        # Positions in the local tensor, in which both the shard and the block lie.
        shard_low = shard.offset[dim]
        block_low = block.offset[dim]
        low = max(shard_low, block_low)
        high = min(shard_low + box_shape[dim], block_low + block.shape[dim])
        if low >= high:
            return None
        to_global = shard.box.start[dim] - shard_low
        start.append(low + to_global)
        stop.append(high + to_global)
        offset.append(low - block_low)
    box = Box(shard.box.tensor, tuple(start), tuple(stop))
    return Shard(shard.rank, box, block.name, tuple(offset))
