"""How a stream is laid into messages, and who keeps room for them: pure, and the same at every rank."""

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
from realrl.ops.box_copies import ALIGNMENT

_SHARED_BYTES = 4 << 20
_SENT_BYTES = {"cpu": 16 << 20, "cuda": 128 << 20}
"""What a stream moves in a turn: enough to hide what a turn costs (0.4 ms of the host's time on CUDA, where
128 MiB take as long over NVLink), and through shared memory little enough to stay in the cache between two
hands."""
_ALONE_BYTES = 64 << 10
"""A block of this size has a message of its own, which need not be packed where it is contiguous."""
_WORD_BYTES = 8


class Entry(NamedTuple):
    """A block of a stream's region, at byte `begin` of a message."""

    region: int
    offset: Shape
    shape: Shape
    begin: int


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent at once and has a checksum."""

    entries: tuple[Entry, ...]
    num_bytes: int
    is_alone: bool
    """It is one block and nothing else, so that either end may do without a copy of it."""


def messages(shapes: Sequence[Shape], itemsizes: Sequence[int], limit: int) -> Iterator[Message]:
    """Lay a stream's regions end to end into messages of at most `limit` bytes, in whole words."""
    entries: list[Entry] = []
    begin = 0
    for entry, num_bytes in _blocks(shapes, itemsizes, limit):
        is_alone = num_bytes >= _ALONE_BYTES and num_bytes % _WORD_BYTES == 0
        if entries and (is_alone or begin + num_bytes > limit):
            yield Message(tuple(entries), begin, False)
            entries, begin = [], 0
        if is_alone:
            yield Message((entry,), num_bytes, True)
            continue
        entries.append(entry._replace(begin=begin))
        begin += -(-num_bytes // ALIGNMENT) * ALIGNMENT
    if entries:
        yield Message(tuple(entries), begin, False)


def _blocks(shapes: Sequence[Shape], itemsizes: Sequence[int], limit: int) -> Iterator[tuple[Entry, int]]:
    for region, (shape, itemsize) in enumerate(zip(shapes, itemsizes, strict=True)):
        for offset, block in split(shape, limit // itemsize):
            yield Entry(region, offset, block, 0), math.prod(block) * itemsize


def bundles(stream: Sequence[Message], limit: int) -> Iterator[range]:
    """Consecutive messages that go down the stream in one turn, at most `limit` bytes together."""
    first, num_bytes = 0, 0
    for index, message in enumerate(stream):
        if num_bytes and num_bytes + message.num_bytes > limit:
            yield range(first, index)
            first, num_bytes = index, 0
        num_bytes += -(-message.num_bytes // ALIGNMENT) * ALIGNMENT
    yield range(first, len(stream))


class Place(NamedTuple):
    """A rank's place in a stream, as far as messages go from hand to hand.

    A port has room for messages of its own: it packs them or gets them from `parent`, another port, sends
    them on to `children`, also ports, and lets `readers` look into its room. A reader has none: its `parent`
    is the port into whose room it looks.
    """

    parent: Rank | None
    children: tuple[Rank, ...]
    readers: tuple[Rank, ...]
    is_port: bool
    depth: int
    """Ports before it."""

    @property
    def num_slots(self) -> int:
        """Bundles that it must have room for at once, so that none waits for one that waits for it."""
        if not self.is_port:
            return 0
        return 4 if self.depth and (self.children or self.readers) else 2


def places(route: Route, topology: Topology) -> dict[Rank, Place]:
    """Every rank's place. Where nodes share memory, one port serves all of its node that come after it."""
    parent: dict[Rank, Rank] = {}
    depth, reading = {route.root: 0}, set()
    children, readers = defaultdict(list), defaultdict(list)
    for sender, receiver in route.edges:
        reads = topology.shared_memory and topology.node(sender) == topology.node(receiver)
        port = parent[sender] if reads and sender in reading else sender
        assert port not in reading, (
            f"{port} has no room to send from: only the first of a node sends to others"
        )
        parent[receiver], depth[receiver] = port, depth[port] + (not reads)
        (readers if reads else children)[port].append(receiver)
        if reads:
            reading.add(receiver)
    return {
        rank: Place(
            parent.get(rank), tuple(children[rank]), tuple(readers[rank]), rank not in reading, depth[rank]
        )
        for rank in route.ranks
    }


def bundle_bytes(plan: TransferPlan, all_places: Sequence[dict[Rank, Place]], staging_bytes: int) -> int:
    """The longest bundle with which no rank has more than `staging_bytes` of room for messages.

    Raises:
        ValueError: there is no room for one element in each bundle that a rank must hold.
    """
    slots: dict[Rank, int] = {}
    for rank, place in (item for members in all_places for item in members.items()):
        slots[rank] = slots.get(rank, 0) + place.num_slots
    busiest = max(slots.values(), default=1)
    room = staging_bytes // busiest // ALIGNMENT * ALIGNMENT
    if not room:
        least = busiest * ALIGNMENT
        raise ValueError(
            f"staging_bytes must be at least {least} for {busiest} messages at once, got {staging_bytes}"
        )
    return room


def usual_bytes(topology: Topology, device: str) -> int:
    """The longest bundle that pays, on a device of type `cpu` or `cuda`."""
    return _SHARED_BYTES if topology.shared_memory else _SENT_BYTES[device]
