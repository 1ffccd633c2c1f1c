"""One rank's end of a stream: what it does with each message, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import P2POp

from realrl.layouts.layout import Rank, Shape
from realrl.layouts.plan import Region, Stream
from realrl.ops.boxes import Boxes, pack, unpack
from realrl.realloc.failure import TransferFailed
from realrl.realloc.rooms import Room
from realrl.realloc.staging import HEADER_BYTES, Message, Place, messages

Tensors = Mapping[str, Tensor]

_WORDS = 5
"""Of a header: version, stream, message, checksum, bytes."""
_CHECKSUM = 3
_NAMED = 3
"""Tensors that an error names."""


class End:
    """A rank's part of one stream.

    A port at depth d, with d ports before it, receives message k in turn k + 2d - 2 and sends it in turn
    k + 2d; whatever begins in a turn is over when the next has begun.
    """

    def __init__(
        self,
        index: int,
        stream: Stream,
        place: Place,
        rank: Rank,
        tensors: Tensors,
        wire: Callable[[Tensor], torch.dtype],
        limit: int,
    ) -> None:
        self.index, self.stream, self.place, self._rank = index, stream, place, rank
        self.is_root = place.parent is None
        self._regions = list(self._own_regions())
        firsts = [copies[0] for copies in self._regions]
        self._wire_dtypes = [wire(tensors[region.local]) for region in firsts]
        itemsizes = [dtype.itemsize for dtype in self._wire_dtypes]
        self._messages = list(messages([region.shape for region in firsts], itemsizes, limit))
        self.device = tensors[firsts[0].local].device
        self._bound: tuple[tuple, list[Boxes]] | None = None
        self._headers = torch.zeros(len(self._messages), _WORDS, dtype=torch.int64, device=self.device)
        self._headers[:, 1] = index
        self._headers[:, 2] = torch.arange(len(self._messages))
        self._headers[:, 4] = torch.tensor([message.num_bytes for message in self._messages])
        self._seen = torch.empty_like(self._headers)

    @property
    def slot_bytes(self) -> int:
        return HEADER_BYTES + max(message.num_bytes for message in self._messages)

    @property
    def room_bytes(self) -> int:
        """What its room takes of this rank's memory."""
        return self.place.num_slots * self.slot_bytes

    @property
    def num_turns(self) -> int:
        return len(self._messages) + 2 * self.place.depth

    def begin(self, room: Room, tensors: Tensors, *, version: int, runs: int, timeout_s: float) -> None:
        """Before the first turn of a run, `runs` of which came before."""
        self._room, self._begun, self._timeout_s = room, runs * len(self._messages), timeout_s
        self._headers[:, 0] = version
        self._boxes = self._bind(tensors)

    def post(self, turn: int, *, checksum: bool) -> list[P2POp]:
        """Begin what is due; a root packs its message here."""
        operations = []
        if not self.place.is_port:
            return operations
        if not self.is_root and (slot := self._free_slot(turn - 2 * self.place.depth + 2)) is not None:
            operations.append(P2POp(dist.irecv, slot, self.place.parent, tag=self.index))
        sent = turn - 2 * self.place.depth
        if 0 <= sent < len(self._messages):
            slot = self._packed(sent, checksum) if self.is_root else self._slot(sent)
            operations += [P2POp(dist.isend, slot, child, tag=self.index) for child in self.place.children]
        return operations

    def finish(self, turn: int, *, eta: float, checksum: bool) -> None:
        """End what was begun in `turn`: what came in is written to the tensors and shown to readers."""
        if self.is_root:
            return
        message = turn - 2 * self.place.depth + (2 if self.place.is_port else 0)
        if not 0 <= message < len(self._messages):
            return
        if self.place.is_port:
            self._room.publish(self._begun + message)
        else:
            self._room.wait_put(self._begun + message, self.place.parent, self._timeout_s)
        slot = self._slot(message)
        self._seen[message] = slot[:HEADER_BYTES].view(torch.int64)[:_WORDS]
        found = self._headers[message, _CHECKSUM : _CHECKSUM + 1] if checksum else None
        unpack(self._boxes[message], slot[HEADER_BYTES:], found, eta=eta)
        if not self.place.is_port:
            self._room.publish_taken(self._begun + message, self._rank)

    def end(self) -> None:
        """After the last turn: what came in must be what was sent.

        Raises:
            TransferFailed: a message was of another version or stream, or its checksum differs.
        """
        del self._boxes, self._room
        if self.is_root:
            return
        differs = (self._seen != self._headers).any(1).nonzero()
        if len(differs):
            raise TransferFailed(self._mismatch(int(differs[0])))

    def _own_regions(self) -> Iterator[tuple[Region, ...]]:
        for piece in self.stream.pieces:
            if self.is_root:
                yield from ((region,) for region in piece.sources(self._rank))
            else:
                yield from piece.targets(self._rank)

    def _bind(self, tensors: Tensors) -> list[Boxes]:
        """Each message's boxes. Those of a source, which stays, are kept; a target may be released."""
        key = tuple(tensors[region.local].data_ptr() for copies in self._regions for region in copies)
        if self._bound is None or self._bound[0] != key:
            self._bound = key, [self._boxes_of(message, tensors) for message in self._messages]
        boxes = self._bound[1]
        if not self.is_root:
            self._bound = None
        return boxes

    def _boxes_of(self, message: Message, tensors: Tensors) -> Boxes:
        views, begins, wire_dtypes = [], [], []
        for entry in message.entries:
            for region in self._regions[entry.region]:
                views.append(view_of(tensors[region.local], region.offset, entry.offset, entry.shape))
                begins.append(entry.begin)
                wire_dtypes.append(self._wire_dtypes[entry.region])
        return Boxes(views, begins, wire_dtypes)

    def _slot(self, message: int) -> Tensor:
        return self._room.slot(self._begun + message, self._messages[message].num_bytes)

    def _free_slot(self, message: int) -> Tensor | None:
        if not 0 <= message < len(self._messages):
            return None
        self._room.wait_free(self._begun + message, self._timeout_s)
        return self._slot(message)

    def _packed(self, message: int, checksum: bool) -> Tensor:
        slot = self._free_slot(message)
        header = slot[:HEADER_BYTES].view(torch.int64)
        header[:_WORDS] = self._headers[message]
        found = header[_CHECKSUM : _CHECKSUM + 1] if checksum else None
        pack(self._boxes[message], slot[HEADER_BYTES:], found)
        self._room.publish(self._begun + message)
        return slot

    def _mismatch(self, message: int) -> str:
        seen, expected = self._seen[message].tolist(), self._headers[message].tolist()
        where = f"message {message} from rank {self.stream.route.root} to rank {self._rank}"
        names = self._names(self._messages[message])
        if seen[0] != expected[0]:
            return f"{where} ({names}) is of version {seen[0]}, not of version {expected[0]}, which is due"
        if seen[:_CHECKSUM] + seen[4:] != expected[:_CHECKSUM] + expected[4:]:
            return f"{where} ({names}; version {seen[0]}) is not the one that is due: {seen}, not {expected}"
        return (
            f"the checksum of {where} ({names}; version {seen[0]}) is {seen[_CHECKSUM]:#x} as it was sent"
            f" and {expected[_CHECKSUM]:#x} as it came in: its bytes changed on the way"
        )

    def _names(self, message: Message) -> str:
        tensors = list(dict.fromkeys(self._regions[entry.region][0].tensor for entry in message.entries))
        more = f" and {len(tensors) - _NAMED} more" if len(tensors) > _NAMED else ""
        return ", ".join(tensors[:_NAMED]) + more

    def __str__(self) -> str:
        return (
            f"stream {self.index}, from rank {self.stream.route.root} to {list(self.stream.route.receivers)}"
        )


def view_of(tensor: Tensor, region: Shape, offset: Sequence[int], shape: Shape) -> Tensor:
    """The block `shape` at `offset` in a region of a local tensor."""
    assert tensor.dim() == len(shape), f"{tuple(tensor.shape)} cannot hold a box of shape {shape}"
    begin = [a + b for a, b in zip(region, offset)]
    fits = all(a + n <= size for a, n, size in zip(begin, shape, tensor.shape))
    assert fits, f"a box of shape {shape} at {begin} does not lie in {tuple(tensor.shape)}"
    first = tensor.storage_offset() + sum(a * stride for a, stride in zip(begin, tensor.stride()))
    return tensor.as_strided(shape, tensor.stride(), first)
