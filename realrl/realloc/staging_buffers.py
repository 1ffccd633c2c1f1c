"""Where a rank keeps the messages that it packs or passes on, and how the others of its host look into it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.layouts.layout import Rank
from realrl.ops import counters
from realrl.realloc.shared import SharedMemory, open_shared
from realrl.realloc.staging import Place
from realrl.realloc.transfer_failure import TransferFailed

_LINE_BYTES = 64
"""A counter has a cache line of its own."""


class Room:
    """The slots of one stream at its port.

    Bundles are numbered over all the times that the stream has run; one lies in the slot of its number
    modulo theirs. The port publishes how many it has put in, and each reader how many it has taken out.
    """

    def __init__(self, slots: Tensor, put: Tensor | None, taken: Mapping[Rank, Tensor], name: str) -> None:
        self._slots, self._put, self._taken, self._name = slots, put, taken, name

    def slot(self, number: int) -> Tensor:
        """Where a bundle lies."""
        return self._slots[number % len(self._slots)]

    def wait_free(self, number: int, timeout_s: float) -> None:
        """Until every reader has taken what lay in the bundle's slot before."""
        for reader, taken in self._taken.items():
            self._wait(taken, number - len(self._slots) + 1, timeout_s, f"rank {reader} has not taken")

    def publish(self, number: int) -> None:
        """The bundle is in its slot."""
        if self._put is not None:
            counters.publish(self._put, number + 1)

    def wait_put(self, number: int, port: Rank, timeout_s: float) -> None:
        self._wait(self._put, number + 1, timeout_s, f"rank {port} has not put in")

    def publish_taken(self, number: int, reader: Rank) -> None:
        counters.publish(self._taken[reader], number + 1)

    def _wait(self, counter: Tensor, value: int, timeout_s: float, complaint: str) -> None:
        if value > 0 and not counters.wait_at_least(counter, value, timeout_s):
            raise TransferFailed(f"{complaint} a message of {self._name} within {timeout_s:g} s")


def private_room(num_slots: int, slot_bytes: int, device: torch.device, name: str) -> Room:
    """Room for a port that nobody looks into."""
    return Room(torch.empty(num_slots, slot_bytes, dtype=torch.uint8, device=device), None, {}, name)


class SharedRooms:
    """The rooms that a rank opens to others of its host, and those of others that it looks into.

    Every rank works out alike where each stream's room lies in its port's memory. The processes tell each
    other what to map over the default process group.
    """

    def __init__(self, all_places: Sequence[Mapping[Rank, Place]], rank: Rank, slot_bytes: int) -> None:
        self._places, self._rank = all_places, rank
        self._slot_bytes = -(-slot_bytes // _LINE_BYTES) * _LINE_BYTES
        self._begins = self._laid_out()
        own = sum(self._room_bytes(all_places[i][port]) for i, port in self._begins if port == rank)
        self._own = SharedMemory(own) if own else None
        self._memories = dict(self._exchange())
        if self._own:
            self._memories[rank] = self._own.memory

    def room(self, stream: int, port: Rank, name: str) -> Room:
        """A stream's room in the memory of its port, this rank or one that it reads from."""
        place, memory = self._places[stream][port], self._memories[port][self._begins[stream, port] :]
        lines = memory[: self._counters_bytes(place)].view(-1, _LINE_BYTES)[:, :4].view(torch.int32)
        slots = memory[self._counters_bytes(place) : self._room_bytes(place)].view(place.num_slots, -1)
        taken = {reader: lines[1 + i] for i, reader in enumerate(place.readers)}
        return Room(slots, lines[0], taken, name)

    def _laid_out(self) -> dict[tuple[int, Rank], int]:
        """Where the room of each stream begins in the memory of each of its ports."""
        begins, ends = {}, defaultdict(int)
        for stream, places in enumerate(self._places):
            for port, place in places.items():
                if place.readers:
                    begins[stream, port] = ends[port]
                    ends[port] += self._room_bytes(place)
        return begins

    def _room_bytes(self, place: Place) -> int:
        return self._counters_bytes(place) + place.num_slots * self._slot_bytes

    def _counters_bytes(self, place: Place) -> int:
        return (1 + len(place.readers)) * _LINE_BYTES

    def _exchange(self) -> Iterator[tuple[Rank, Tensor]]:
        """The memories that this rank reads from. An owner waits until its readers have mapped its own."""
        readers, ports = set(), set()
        for places in (p for p in self._places if self._rank in p):
            mine = places[self._rank]
            if mine.is_port:
                readers.update(mine.readers)
            else:
                ports.add(mine.parent)
        handles = {port: torch.empty(3, dtype=torch.int64) for port in sorted(ports)}
        told = [dist.isend(self._own.handle, reader) for reader in sorted(readers)]
        for port, handle in handles.items():
            dist.recv(handle, port)
            yield port, open_shared(handle)
        mapped = torch.zeros(1)
        told += [dist.isend(mapped, port) for port in sorted(ports)]
        for reader in sorted(readers):
            dist.recv(torch.empty(1), reader)
        for work in told:
            work.wait()
