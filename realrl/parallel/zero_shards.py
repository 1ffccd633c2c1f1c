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
    """The part of a shard that lies in the block."""
    ends = [o + n for o, n in zip(shard.offset, shard.box.shape)], map(sum, zip(block.offset, block.shape))
    low, high = tuple(map(max, zip(shard.offset, block.offset))), tuple(map(min, zip(*ends)))
    if any(a >= b for a, b in zip(low, high)):
        return None
    start, stop = (
        tuple(b + x - o for b, x, o in zip(shard.box.start, edge, shard.offset)) for edge in (low, high)
    )
    offset = tuple(a - o for a, o in zip(low, block.offset))
    return Shard(shard.rank, Box(shard.box.tensor, start, stop), block.name, offset)
