"""Predicts the memory that a reallocation takes on each rank, from its plan alone."""

from __future__ import annotations

import math
from operator import add
from typing import NamedTuple

import torch

from realrl.api.transport import Transport
from realrl.layouts.layout import Layout, Rank
from realrl.layouts.plan import Stream, TransferPlan
from realrl.ops.box_rows import ALIGNMENT
from realrl.realloc.manifest import MANIFEST_BYTES
from realrl.realloc.staging import bundle_bytes, places
from realrl.realloc.transfer import USUAL
from realrl.realloc.transports.by_name import transport_for


class Memory(NamedTuple):
    """Bytes of one rank at the peak of a reallocation."""

    source_bytes: int
    """The weights that it holds in the source layout."""
    target_bytes: int
    """The weights that it will hold in the destination layout."""
    staging_bytes: int
    """Staging buffers. This is an upper bound: streams that are cut unevenly need a little less."""

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(self)


def peak_memory(
    plan: TransferPlan,
    source: Layout,
    destination: Layout,
    *,
    itemsizes: tuple[int, int],
    staging_bytes: int = USUAL.staging_bytes,
    device: str = "cpu",
    transport: Transport | None = None,
) -> dict[Rank, Memory]:
    """Return the memory of each rank of `source` and `destination` at the peak of a reallocation.

    `itemsizes` are the bytes of an element in the source and in the destination; the smaller ones are sent.
    `staging_bytes` limits the staging buffers of a rank. `transport` carries the messages; None stands for
    the built-in one that the plan's topology needs.
    """
    source_itemsize, target_itemsize = itemsizes
    carrier = transport or transport_for(plan.topology)
    usual_bytes = carrier.bundle_bytes(torch.device(device))
    staging = _staging_by_rank(plan, min(itemsizes), staging_bytes, usual_bytes)
    found = {}
    for rank in dict.fromkeys((*source.ranks, *destination.ranks)):
        found[rank] = Memory(
            source_bytes=held_elements(source, rank) * source_itemsize,
            target_bytes=held_elements(destination, rank) * target_itemsize,
            staging_bytes=staging.get(rank, 0),
        )
    return found


def _staging_by_rank(
    plan: TransferPlan, itemsize: int, staging_bytes: int, usual_bytes: int
) -> dict[Rank, int]:
    """Return the bytes of staging buffers on each rank that takes part in a stream."""
    located = [places(stream.route, plan.topology) for stream in plan.streams]
    limit = min(
        bundle_bytes(plan, located, staging_bytes),
        usual_bytes,
    )
    slot_bytes = [min(limit, _stream_bytes(stream, itemsize)) for stream in plan.streams]
    staging = {}
    for rank, streams in plan.by_rank.items():
        total = 0
        for index in streams:
            place = located[index][rank]
            total += place.num_slots * slot_bytes[index]
        staging[rank] = total
    return staging


def _stream_bytes(stream: Stream, itemsize: int) -> int:
    """Return an upper bound on the bytes of a stream in one bundle, together with its manifest."""
    num_regions = 0
    for piece in stream.pieces:
        num_regions += piece.last - piece.first
    content = stream.numel * itemsize
    # Each region, and the manifest, may need padding up to the alignment of messages.
    padding = (num_regions + 1) * ALIGNMENT
    manifest = num_regions * MANIFEST_BYTES
    return content + padding + manifest


def held_elements(layout: Layout, rank: Rank) -> int:
    """Return the elements of the local tensors of `rank`; padding after the last box is not counted."""
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in layout.shards(rank):
        name = shard.local
        stop = tuple(map(add, shard.offset, shard.box.shape))
        # The box that ends last in a dimension gives the tensor's size there.
        earlier = shapes.get(name, stop)
        shapes[name] = tuple(map(max, stop, earlier))

    total = 0
    for shape in shapes.values():
        total += math.prod(shape)
    return total
