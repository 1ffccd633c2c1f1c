"""Staging buffers of a relay: ring buffers of slots, private or shared with the readers of its host.

relay                      ring of one stream                     reader
wait_free ◀──────────────── taken[reader] ◀──────────────── publish_taken
write the bundle ─────────▶ slot[number % slots] ─────────▶ read the bundle
publish ──────────────────▶ put ───────────────────────────▶ wait_put
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.layouts.layout import Rank
from realrl.ops import counters
from realrl.realloc.shared import SharedMemory, open_shared
from realrl.realloc.staging import Place
from realrl.realloc.transfer_failure import TransferFailed

_LINE_BYTES = 64
"""Size of a cache line. Each counter has a line of its own, so that processes do not slow each other down."""
_COUNTER_BYTES = 4
"""Size of a counter, an int32."""
_HANDLE_WORDS = 3
"""Length of the handle of a `SharedMemory`."""


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
            self._wait(taken, needed, timeout_s, f"rank {reader} has not taken")

    def publish(self, number: int) -> None:
        """Tell the readers that the bundle is in its slot."""
        if self._put is not None:
            counters.publish(self._put, number + 1)

    def wait_put(self, number: int, relay: Rank, timeout_s: float) -> None:
        """Wait until `relay` has put the bundle in its slot.

        Raises:
            TransferFailed: the relay did not put it in in time.
        """
        self._wait(self._put, number + 1, timeout_s, f"rank {relay} has not put in")

    def publish_taken(self, number: int, reader: Rank) -> None:
        """Tell the relay that `reader` has taken the bundle."""
        counters.publish(self._taken[reader], number + 1)

    def _wait(self, counter: Tensor, value: int, timeout_s: float, complaint: str) -> None:
        if value <= 0:
            return
        if not counters.wait_at_least(counter, value, timeout_s):
            raise TransferFailed(f"{complaint} a message of {self._name} within {timeout_s:g} s")


def private_ring(num_slots: int, slot_bytes: int, device: torch.device, name: str) -> SlotRing:
    """Return a ring for a relay without readers."""
    slots = torch.empty(num_slots, slot_bytes, dtype=torch.uint8, device=device)
    return SlotRing(slots, None, {}, name)


class SharedRings:
    """The rings that a rank shares with its readers, and the rings of the relays that it reads from.

    Every rank computes the same position of each ring in its relay's memory. The processes exchange handles
    of their memory over the default process group.
    """

    def __init__(self, all_places: Sequence[Mapping[Rank, Place]], rank: Rank, slot_bytes: int) -> None:
        """Allocate this rank's memory and map that of its relays.

        Collective: over the ranks that share rings with this one.
        """
        self._places = all_places
        self._rank = rank
        self._slot_bytes = -(-slot_bytes // _LINE_BYTES) * _LINE_BYTES
        self._begins, sizes = self._lay_out()
        own_bytes = sizes.get(rank, 0)
        self._own = SharedMemory(own_bytes) if own_bytes else None
        self._memories = self._exchange()
        if self._own:
            self._memories[rank] = self._own.memory

    def ring(self, stream: int, relay: Rank, name: str) -> SlotRing:
        """Return a stream's ring in the memory of `relay`: this rank, or one that it reads from."""
        place = self._places[stream][relay]
        counters_bytes = self._counters_bytes(place)
        ring_bytes = self._ring_bytes(place)
        begin = self._begins[stream, relay]
        memory = self._memories[relay][begin:]
        lines = memory[:counters_bytes].view(-1, _LINE_BYTES)
        all_counters = lines[:, :_COUNTER_BYTES].view(torch.int32)
        slots = memory[counters_bytes:ring_bytes].view(place.num_slots, -1)
        taken: dict[Rank, Tensor] = {}
        for line, reader in enumerate(place.readers, start=1):
            taken[reader] = all_counters[line]
        return SlotRing(slots, all_counters[0], taken, name)

    def _lay_out(self) -> tuple[dict[tuple[int, Rank], int], Mapping[Rank, int]]:
        """Return where each stream's ring begins in its relay's memory, and each relay's bytes in total."""
        begins: dict[tuple[int, Rank], int] = {}
        sizes: dict[Rank, int] = defaultdict(int)
        for stream, places in enumerate(self._places):
            for relay, place in places.items():
                if place.readers:
                    begins[stream, relay] = sizes[relay]
                    sizes[relay] += self._ring_bytes(place)
        return begins, sizes

    def _ring_bytes(self, place: Place) -> int:
        return self._counters_bytes(place) + place.num_slots * self._slot_bytes

    def _counters_bytes(self, place: Place) -> int:
        """Return the bytes of a ring's counters: one of the relay and one per reader."""
        return (1 + len(place.readers)) * _LINE_BYTES

    def _peers(self) -> tuple[list[Rank], list[Rank]]:
        """Return the ranks that read from this one, and the relays that this rank reads from; both sorted."""
        readers: set[Rank] = set()
        relays: set[Rank] = set()
        for places in self._places:
            if self._rank not in places:
                continue
            own_place = places[self._rank]
            if own_place.is_relay:
                readers.update(own_place.readers)
            else:
                relays.add(own_place.parent)
        return sorted(readers), sorted(relays)

    def _exchange(self) -> dict[Rank, Tensor]:
        """Map and return the memories that this rank reads from; wait until readers have mapped its own."""
        readers, relays = self._peers()
        sent = [dist.isend(self._own.handle, reader) for reader in readers]
        memories: dict[Rank, Tensor] = {}
        for relay in relays:
            handle = torch.empty(_HANDLE_WORDS, dtype=torch.int64)
            dist.recv(handle, relay)
            memories[relay] = open_shared(handle)
        # A handle names a file descriptor of its owner, which must live until its readers have opened it.
        acknowledgement = torch.zeros(1)
        sent += [dist.isend(acknowledgement, relay) for relay in relays]
        for reader in readers:
            dist.recv(torch.empty(1), reader)
        for work in sent:
            work.wait()
        return memories
