"""What a reallocation takes of a rank's memory, known from its plan alone."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from realrl.api.transport import Transport
from realrl.layouts.layout import Layout, Rank
from realrl.layouts.plan import Stream, TransferPlan
from realrl.ops.box_copies import ALIGNMENT
from realrl.realloc.manifest import MANIFEST_BYTES
from realrl.realloc.staging import bundle_bytes, places
from realrl.realloc.transfer import USUAL
from realrl.realloc.transports.registry import transport_for


class Memory(NamedTuple):
    """Bytes of one rank at the peak of a reallocation."""

    source_bytes: int
    """The weights that it holds in the source layout."""
    target_bytes: int
    """Those that it is to hold in the destination."""
    staging_bytes: int
    """Room for messages: at most this, where streams are cut unevenly a little less."""

    @property
    def total_bytes(self) -> int:
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
    """What each rank needs when all elements have these sizes, in the source and in the destination.

    The narrower ones travel, by `transport`; None: the built-in one that the plan's topology needs.
    """
    located = [places(stream.route, plan.topology) for stream in plan.streams]
    limit = min(bundle_bytes(plan, located, staging_bytes), _usual_bytes(plan, device, transport))
    longest = [min(limit, _longest(stream, min(itemsizes))) for stream in plan.streams]
    return {
        rank: Memory(
            held_elements(source, rank) * itemsizes[0],
            held_elements(destination, rank) * itemsizes[1],
            sum(located[i][rank].num_slots * longest[i] for i in plan.by_rank.get(rank, ())),
        )
        for rank in dict.fromkeys((*source.ranks, *destination.ranks))
    }


def _usual_bytes(plan: TransferPlan, device: str, transport: Transport | None) -> int:
    """Return the size of a bundle above which nothing is gained."""
    carrier = transport or transport_for(plan.topology)
    return carrier.bundle_bytes(torch.device(device))


def _longest(stream: Stream, itemsize: int) -> int:
    """All of a stream in one bundle, or its manifest."""
    num_regions = sum(piece.last - piece.first for piece in stream.pieces)
    return stream.numel * itemsize + num_regions * (ALIGNMENT + MANIFEST_BYTES)


def held_elements(layout: Layout, rank: Rank) -> int:
    """Elements of the local tensors of `rank`, as far as boxes lie in them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for shard in layout.shards(rank):
        stop = tuple(a + n for a, n in zip(shard.offset, shard.box.shape))
        shapes[shard.local] = tuple(map(max, stop, shapes.get(shard.local, stop)))
    return sum(map(math.prod, shapes.values()))
