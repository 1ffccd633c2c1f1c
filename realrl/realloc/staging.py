"""Staging buffers of a transfer: which ranks have them, and the ring buffers of slots that they are.

relay                      ring of one stream                     reader
wait_free ◀──────────────── taken[reader] ◀──────────────── publish_taken
write the bundle ─────────▶ slot[number % slots] ─────────▶ read the bundle
publish ──────────────────▶ put ───────────────────────────▶ wait_put
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.base.waiting import wait_for_ranks
from realrl.layouts.layout import Rank
from realrl.layouts.plan import TransferPlan
from realrl.layouts.routes import Route
from realrl.layouts.topology import Topology
from realrl.ops import counters
from realrl.ops.box_rows import ALIGNMENT
from realrl.realloc.shared import HANDLE_WORDS, SharedMemory, open_shared
from realrl.realloc.transfer_failure import TransferFailed

_LINE_BYTES = 64
"""Size of a cache line. Each counter has a line of its own, so that processes do not slow each other down."""
_COUNTER_BYTES = 4
"""Size of a counter, an int32."""


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
    def is_private(self) -> bool:
        """Whether no other rank reads from its staging buffers, and it reads from no other's."""
        return self.is_relay and not self.readers

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
    """Return every rank's place. Where ranks can read from one another, one relay serves all later ones."""
    parent: dict[Rank, Rank] = {}
    depth = {route.root: 0}
    children: dict[Rank, list[Rank]] = defaultdict(list)
    readers: dict[Rank, list[Rank]] = defaultdict(list)
    reading: set[Rank] = set()

    for sender, receiver in route.edges:
        reads = topology.can_read(receiver, sender)
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


def process_of(rank: Rank) -> int:
    """Return the rank of a process, which can send and receive."""
    assert isinstance(rank, int), f"the file {rank} cannot take part in a transfer: read it instead"
    return rank


def bundle_bytes(plan: TransferPlan, all_places: Sequence[Mapping[Rank, Place]], staging_bytes: int) -> int:
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


class SlotRing:
    """The ring buffer of one stream at a relay: bundle n is in slot n modulo the number of slots.

    Bundles are numbered across all runs of the stream. The relay publishes how many bundles it has put in,
    and each reader publishes how many it has taken.
    """

    def __init__(self, slots: Tensor, put: Tensor | None, taken: Mapping[Rank, Tensor], name: str) -> None:
        """Create a ring over its memory.

        Shapes: `slots` is uint8 `[num_slots, slot_bytes]`. The counter `put` and those in `taken`, by reader,
            are int32 `[1]`; `put` is None for a ring without readers.
        """
        self._slots = slots
        self._put = put
        self._taken = taken
        self._name = name

    def slot(self, number: int) -> Tensor:
        """Return the slot of a bundle, uint8 `[slot_bytes]`."""
        return self._slots[number % len(self._slots)]

    def wait_free(self, number: int, timeout_s: float) -> None:
        """Wait until every reader has taken the previous content of the bundle's slot.

        Raises:
            TransferFailed: a reader did not take it in time.
        """
        needed = number - len(self._slots) + 1
        for reader, taken in self._taken.items():
            self._wait(
                taken,
                needed,
                timeout_s,
                f"rank {reader} has not taken",
            )

    def publish(self, number: int) -> None:
        """Tell the readers that the bundle is in its slot."""
        if self._put is not None:
            counters.publish(self._put, number + 1)

    def wait_put(self, number: int, relay: Rank, timeout_s: float) -> None:
        """Wait until `relay` has put the bundle in its slot.

        Raises:
            TransferFailed: the relay did not put it in in time.
        """
        assert self._put is not None, "only a ring with readers is waited for"
        self._wait(
            self._put,
            number + 1,
            timeout_s,
            f"rank {relay} has not put in",
        )

    def publish_taken(self, number: int, reader: Rank) -> None:
        """Tell the relay that `reader` has taken the bundle."""
        counters.publish(self._taken[reader], number + 1)

    def _wait(self, counter: Tensor, value: int, timeout_s: float, complaint: str) -> None:
        if value <= 0:
            return
        if not wait_for_ranks(counters.wait_at_least, counter, value, timeout_s):
            raise TransferFailed(f"{complaint} a message of {self._name} within {timeout_s:g} s")


class Rings:
    """The rings of one rank: its own, private or shared with its readers, and those of relays that it reads.

    Every rank computes the same position of each shared ring in its relay's memory.
    """

    def __init__(
        self, all_places: Sequence[Mapping[Rank, Place]], rank: int, slot_bytes: int, *, shares_memory: bool
    ) -> None:
        """Allocate the memory of this rank's shared rings, and map that of its relays.

        Collective: over the ranks that share rings with this one, in the default process group.
        """
        self._places = all_places
        self._rank = rank
        num_lines = -(-slot_bytes // _LINE_BYTES)
        self._slot_bytes = num_lines * _LINE_BYTES
        self._begins, sizes = self._lay_out()
        self._memories: dict[Rank, Tensor] = {}
        readers, relays = self._peers()
        assert shares_memory or not (readers or relays), (
            "the plan has ranks share memory, but their transport does not"
        )

        sent: list[dist.Work | None] = []
        if readers:
            own = SharedMemory(sizes[rank])
            self._memories[rank] = own.memory
            sent += [wait_for_ranks(dist.isend, own.handle, reader) for reader in readers]
        for relay in relays:
            handle = torch.empty(HANDLE_WORDS, dtype=torch.int64)
            wait_for_ranks(dist.recv, handle, relay)
            self._memories[relay] = open_shared(handle)

        # A handle names a file descriptor of its owner, which must live until its readers have opened it.
        acknowledgement = torch.zeros(1)
        sent += [wait_for_ranks(dist.isend, acknowledgement, relay) for relay in relays]
        for reader in readers:
            wait_for_ranks(dist.recv, torch.empty(1), reader)
        for work in sent:
            assert work is not None, "every rank is of the default process group"
            wait_for_ranks(work.wait)

    def ring(self, stream: int, slot_bytes: int, device: torch.device, name: str) -> SlotRing:
        """Return the ring in which this rank puts a stream's bundles, or from which it reads them.

        A private ring is allocated on `device`, with slots of `slot_bytes`.
        """
        place = self._places[stream][self._rank]
        if place.is_private:
            slots = torch.empty(
                place.num_slots,
                slot_bytes,
                dtype=torch.uint8,
                device=device,
            )
            return SlotRing(slots, None, {}, name)

        relay = self._rank if place.is_relay else place.parent
        assert relay is not None, "a reader has a relay"
        return self._shared_ring(stream, relay, name)

    def _shared_ring(self, stream: int, relay: Rank, name: str) -> SlotRing:
        """Return a stream's ring in the memory of `relay`: this rank, or one that it reads from."""
        place = self._places[stream][relay]
        counters_bytes = self._counters_bytes(place)
        ring_bytes = self._ring_bytes(place)
        begin = self._begins[stream, relay]
        memory = self._memories[relay][begin:]

        lines = memory[:counters_bytes].view(-1, _LINE_BYTES)
        counter_bytes = lines[:, :_COUNTER_BYTES]
        all_counters = counter_bytes.view(torch.int32)
        put = all_counters[0]
        taken: dict[Rank, Tensor] = {}
        for line, reader in enumerate(place.readers, start=1):
            taken[reader] = all_counters[line]

        slots = memory[counters_bytes:ring_bytes].view(place.num_slots, -1)
        return SlotRing(slots, put, taken, name)

    def _lay_out(self) -> tuple[dict[tuple[int, Rank], int], Mapping[Rank, int]]:
        """Return where each stream's ring begins in its relay's memory, and each relay's bytes in total."""
        begins: dict[tuple[int, Rank], int] = {}
        sizes: dict[Rank, int] = defaultdict(int)

        for stream, places in enumerate(self._places):
            for relay, place in places.items():
                if not place.readers:
                    continue
                begins[stream, relay] = sizes[relay]
                sizes[relay] += self._ring_bytes(place)

        return begins, sizes

    def _ring_bytes(self, place: Place) -> int:
        slots_bytes = place.num_slots * self._slot_bytes
        return self._counters_bytes(place) + slots_bytes

    def _counters_bytes(self, place: Place) -> int:
        """Return the bytes of a ring's counters: one of the relay and one per reader."""
        num_counters = 1 + len(place.readers)
        return num_counters * _LINE_BYTES

    def _peers(self) -> tuple[list[int], list[int]]:
        """Return the ranks that read from this one, and the relays that this rank reads from; both sorted."""
        readers: set[int] = set()
        relays: set[int] = set()

        for places in self._places:
            if self._rank not in places:
                continue
            own_place = places[self._rank]
            if own_place.is_relay:
                readers.update(map(process_of, own_place.readers))
                continue

            assert own_place.parent is not None, "a reader has a relay"
            relays.add(process_of(own_place.parent))

        return sorted(readers), sorted(relays)
