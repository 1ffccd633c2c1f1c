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
from torch import Tensor

from realrl.api.transport import Sharing
from realrl.base.waiting import wait_for_ranks
from realrl.layouts.layout import Rank
from realrl.ops import counters
from realrl.realloc.staging import Place, process_of
from realrl.realloc.transfer_failure import TransferFailed

_LINE_BYTES = 64
"""Size of a cache line. Each counter has a line of its own, so that processes do not slow each other down."""
_COUNTER_BYTES = 4
"""Size of a counter, an int32."""


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


def private_ring(num_slots: int, slot_bytes: int, device: torch.device, name: str) -> SlotRing:
    """Return a ring for a relay without readers."""
    slots = torch.empty(
        num_slots,
        slot_bytes,
        dtype=torch.uint8,
        device=device,
    )
    return SlotRing(slots, None, {}, name)


class SharedRings:
    """The rings that a rank shares with its readers, and the rings of the relays that it reads from.

    Every rank computes the same position of each ring in its relay's memory.
    """

    def __init__(
        self, all_places: Sequence[Mapping[Rank, Place]], rank: int, slot_bytes: int, sharing: Sharing
    ) -> None:
        """Allocate this rank's memory and map that of its relays.

        Collective: over the ranks that share rings with this one.
        """
        self._places = all_places
        self._rank = rank
        num_lines = -(-slot_bytes // _LINE_BYTES)
        self._slot_bytes = num_lines * _LINE_BYTES
        self._begins, sizes = self._lay_out()
        own_bytes = sizes.get(rank, 0)
        readers, relays = self._peers()
        own, memories = sharing.exchange(own_bytes, readers, relays)
        self._memories: dict[Rank, Tensor] = {}
        self._memories.update(memories.items())
        if own is not None:
            self._memories[rank] = own

    def ring(self, stream: int, relay: Rank, name: str) -> SlotRing:
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
