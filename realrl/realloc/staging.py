"""Layout of streams as messages, and the ranks that buffer them. Pure functions, equal on every rank.

stream   region 0 │ region 1 │ region 2 │ …      blocks of a plan's boxes
message  [entry entry] [entry: alone] [entry …]   at most `limit` bytes each; one checksum each
bundle   [message message …] [message …]          what a stream sends in one turn; at most `limit` bytes
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from realrl.layouts.boxes import split
from realrl.layouts.layout import Rank, Shape
from realrl.layouts.plan import TransferPlan
from realrl.layouts.routes import Route
from realrl.layouts.topology import Topology
from realrl.ops.box_rows import ALIGNMENT

_SHARED_BYTES = 4 << 20
"""Bytes that a stream moves in a turn through shared memory: they stay in the cache until they are read."""
_SENT_BYTES = {"cpu": 16 << 20, "cuda": 128 << 20}
"""Bytes that a stream sends in a turn, by device type.

They hide the cost of a turn: on CUDA 0.4 ms of the host's time, as long as 128 MiB take over NVLink.
"""
_ALONE_BYTES = 64 << 10
"""A block of at least this size has a message of its own, which needs no packing if it is contiguous."""
_WORD_BYTES = 8
"""Checksums add 64-bit words."""


class Entry(NamedTuple):
    """A block of a stream's region, at byte `begin` of a message."""

    region: int
    offset: Shape
    shape: Shape
    begin: int


@dataclass(frozen=True, slots=True)
class Message:
    """The unit of sending, with one checksum."""

    entries: tuple[Entry, ...]
    num_bytes: int
    is_alone: bool
    """Whether it is exactly one block, so that either endpoint may send or receive it without a copy."""


def messages(shapes: Sequence[Shape], itemsizes: Sequence[int], limit: int) -> Iterator[Message]:
    """Lay a stream's regions end to end into messages of at most `limit` bytes."""
    entries: list[Entry] = []
    begin = 0
    for entry, num_bytes in _blocks(shapes, itemsizes, limit):
        is_whole_words = num_bytes % _WORD_BYTES == 0
        is_alone = num_bytes >= _ALONE_BYTES and is_whole_words
        is_full = begin + num_bytes > limit
        if entries and (is_alone or is_full):
            yield Message(tuple(entries), begin, False)
            entries = []
            begin = 0
        if is_alone:
            yield Message((entry,), num_bytes, True)
            continue
        entries.append(entry._replace(begin=begin))
        begin += aligned(num_bytes)
    if entries:
        yield Message(tuple(entries), begin, False)


def aligned(num_bytes: int) -> int:
    """Return `num_bytes` rounded up to the alignment of entries and messages."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _blocks(shapes: Sequence[Shape], itemsizes: Sequence[int], limit: int) -> Iterator[tuple[Entry, int]]:
    """Split regions into blocks of at most `limit` bytes; yield each with its size in bytes."""
    for region, (shape, itemsize) in enumerate(zip(shapes, itemsizes, strict=True)):
        for offset, block in split(shape, limit // itemsize):
            num_bytes = math.prod(block) * itemsize
            yield Entry(region, offset, block, 0), num_bytes


def bundles(stream: Sequence[Message], limit: int) -> Iterator[range]:
    """Group consecutive messages that are sent in one turn, at most `limit` bytes together."""
    first = 0
    num_bytes = 0
    for index, message in enumerate(stream):
        if num_bytes and num_bytes + message.num_bytes > limit:
            yield range(first, index)
            first = index
            num_bytes = 0
        num_bytes += aligned(message.num_bytes)
    yield range(first, len(stream))


class Place(NamedTuple):
    """A rank's place in the tree that a stream's messages follow.

    A relay has staging buffers. It packs messages or receives them from `parent`, another relay. It sends
    them to `children`, also relays, and its `readers` read them from its buffers. A reader has no buffers:
    its `parent` is the relay whose buffers it reads.
    """

    parent: Rank | None
    children: tuple[Rank, ...]
    readers: tuple[Rank, ...]
    is_relay: bool
    depth: int
    """Number of relays before it."""

    @property
    def num_slots(self) -> int:
        """Number of bundles that it buffers at once, enough that no two ranks wait for each other."""
        if not self.is_relay:
            return 0
        receives = self.depth > 0
        passes_on = bool(self.children or self.readers)
        # A relay that passes on what it receives has two bundles on their way in, and two on their way out.
        return 4 if receives and passes_on else 2


def places(route: Route, topology: Topology) -> dict[Rank, Place]:
    """Return every rank's place. With shared memory, one relay serves all later ranks of its node."""
    parent: dict[Rank, Rank] = {}
    depth = {route.root: 0}
    children: dict[Rank, list[Rank]] = defaultdict(list)
    readers: dict[Rank, list[Rank]] = defaultdict(list)
    reading: set[Rank] = set()
    for sender, receiver in route.edges:
        is_same_node = topology.node(sender) == topology.node(receiver)
        reads = topology.shared_memory and is_same_node
        relay = parent[sender] if reads and sender in reading else sender
        assert relay not in reading, (
            f"{relay} has no buffers to send from: only the first rank of a node sends to others"
        )
        parent[receiver] = relay
        if reads:
            depth[receiver] = depth[relay]
            readers[relay].append(receiver)
            reading.add(receiver)
        else:
            depth[receiver] = depth[relay] + 1
            children[relay].append(receiver)
    found: dict[Rank, Place] = {}
    for rank in route.ranks:
        found[rank] = Place(
            parent=parent.get(rank),
            children=tuple(children[rank]),
            readers=tuple(readers[rank]),
            is_relay=rank not in reading,
            depth=depth[rank],
        )
    return found


def bundle_bytes(plan: TransferPlan, all_places: Sequence[dict[Rank, Place]], staging_bytes: int) -> int:
    """Return the longest bundle with which no rank needs more than `staging_bytes` of staging buffers.

    Raises:
        ValueError: `staging_bytes` cannot hold one element in every bundle that a rank buffers.
    """
    slots: dict[Rank, int] = {}
    for members in all_places:
        for rank, place in members.items():
            slots[rank] = slots.get(rank, 0) + place.num_slots
    busiest = max(slots.values(), default=1)
    limit = staging_bytes // busiest // ALIGNMENT * ALIGNMENT
    if not limit:
        least = busiest * ALIGNMENT
        raise ValueError(
            f"staging_bytes must be at least {least} for {busiest} messages at once, got {staging_bytes}"
        )
    return limit


def usual_bytes(topology: Topology, device: str) -> int:
    """Return the bundle size above which nothing is gained, on a device of type `cpu` or `cuda`."""
    return _SHARED_BYTES if topology.shared_memory else _SENT_BYTES[device]
