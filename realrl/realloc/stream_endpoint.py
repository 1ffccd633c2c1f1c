"""One rank's end of a stream: what it does with each message, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.layouts.layout import Rank, Shape
from realrl.layouts.plan import Region, Stream
from realrl.ops.box_copies import ALIGNMENT, Boxes, add_up, pack, unpack
from realrl.realloc.staging import Message, Place, bundles, messages
from realrl.realloc.staging_buffers import Room
from realrl.realloc.transfer_failure import TransferFailed

Tensors = Mapping[str, Tensor]

_WORDS = 5
"""What a stream's manifest says of each message: version, stream, message, checksum, bytes."""
MANIFEST_BYTES = 8 * _WORDS
_CHECKSUM = 3
_NAMED = 3
"""Tensors that an error names."""


class Operation(NamedTuple):
    """A message on its way from or to a peer, and what is done when it has arrived."""

    kind: Callable
    """`dist.isend` or `dist.irecv`."""
    buffer: Tensor
    peer: Rank
    tag: int
    take: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Where a message's bytes lie in this run: side by side in a tensor, or in boxes."""

    in_place: Tensor | None
    boxes: Boxes | None


class End:
    """A rank's part of one stream: bundles of messages, and after them a manifest of what those are.

    A port at depth d, with d ports before it, receives bundle k in turn k + 2d - 2 and sends it in turn
    k + 2d; whatever begins in a turn is over when the next has begun. A message of one block goes straight
    from tensor to wire, or from wire to tensor, where the block is contiguous; others are packed.
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
        self._rows = limit // MANIFEST_BYTES
        self._bundles = list(bundles(self._messages, limit))
        self._num = len(self._bundles) + -(-len(self._messages) // self._rows)
        self._manifest = torch.zeros(len(self._messages), _WORDS, dtype=torch.int64, device=self.device)
        self._manifest[:, 1] = index
        self._manifest[:, 2] = torch.arange(len(self._messages))
        self._manifest[:, 4] = torch.tensor([message.num_bytes for message in self._messages])
        self._seen = torch.empty_like(self._manifest)
        self.room_bytes = 0
        """What its room took of this rank's memory in the last run."""

    @property
    def slot_bytes(self) -> int:
        """The longest bundle that this end keeps room for, after `bind`."""
        return max(
            [
                *(places[-1] for places in self._slot_places),
                min(self._rows, len(self._messages)) * MANIFEST_BYTES,
            ]
        )

    @property
    def num_turns(self) -> int:
        return self._num + 2 * self.place.depth

    def bind(self, tensors: Tensors, *, version: int, eta: float, checksum: bool) -> None:
        """Find the tensors of a run, and what is to become of them."""
        self._eta, self._checksum = eta, checksum
        overwrites = self.is_root or eta == 1.0
        may_be_direct = self.place.is_port and not self.place.readers and overwrites
        self._bindings = [self._binding(message, tensors, may_be_direct) for message in self._messages]
        self._slot_places = [self._places_in(bundle) for bundle in self._bundles]
        self._manifest[:, 0] = version

    def begin(self, room: Room, *, runs: int, timeout_s: float) -> None:
        """Before the first turn of a run, `runs` of which came before."""
        self._room, self._begun, self._timeout_s = room, runs * self._num, timeout_s

    def post(self, turn: int) -> Iterator[Operation]:
        """Begin what is due; a root packs a message just before it is posted, so that it is in the cache."""
        received, sent = turn - 2 * self.place.depth + 2, turn - 2 * self.place.depth
        if self.place.is_port and not self.is_root and 0 <= received < self._num:
            self._room.wait_free(self._begun + received, self._timeout_s)
            for index, buffer in enumerate(self._buffers(received)):
                take = partial(self._take, received, index, buffer)
                yield Operation(dist.irecv, buffer, self.place.parent, self.index, take)
        if self.place.is_port and 0 <= sent < self._num:
            for buffer in self._filled(sent) if self.is_root else self._buffers(sent):
                yield from (Operation(dist.isend, buffer, peer, self.index) for peer in self.place.children)

    def finish(self, turn: int) -> None:
        """End what was begun in `turn`: show readers what came in; a reader writes it to its tensors."""
        number = turn - 2 * self.place.depth + (2 if self.place.is_port else 0)
        if self.is_root or not 0 <= number < self._num:
            return
        if self.place.is_port:
            self._room.publish(self._begun + number)
            return
        self._room.wait_put(self._begun + number, self.place.parent, self._timeout_s)
        for index, buffer in enumerate(self._buffers(number)):
            self._take(number, index, buffer)
        self._room.publish_taken(self._begun + number, self._rank)

    def end(self) -> None:
        """After the last turn: what came in must be what was sent.

        Raises:
            TransferFailed: a message was of another version or stream, or its checksum differs.
        """
        self.room_bytes = self.place.num_slots * self.slot_bytes
        del self._bindings, self._room
        if self.is_root:
            return
        differs = (self._seen != self._manifest).any(1).nonzero()
        if len(differs):
            raise TransferFailed(self._mismatch(int(differs[0])))

    def _own_regions(self) -> Iterator[tuple[Region, ...]]:
        for piece in self.stream.pieces:
            if self.is_root:
                yield from ((region,) for region in piece.sources(self._rank))
            else:
                yield from piece.targets(self._rank)

    def _binding(self, message: Message, tensors: Tensors, may_be_direct: bool) -> Binding:
        views, begins, wire_dtypes = [], [], []
        for entry in message.entries:
            for region in self._regions[entry.region]:
                views.append(view_of(tensors[region.local], region.offset, entry.offset, entry.shape))
                begins.append(entry.begin)
                wire_dtypes.append(self._wire_dtypes[entry.region])
        if may_be_direct and message.is_alone and _is_message(views, wire_dtypes[0]):
            return Binding(views[0].reshape(-1).view(torch.uint8), None)
        return Binding(None, Boxes(views, begins, wire_dtypes))

    def _places_in(self, bundle: range) -> list[int]:
        """Where each message that is not in place begins in the bundle's slot, and where the last ends."""
        sizes = [0 if self._bindings[m].in_place is not None else self._messages[m].num_bytes for m in bundle]
        return list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))

    def _buffers(self, number: int) -> list[Tensor]:
        """Where the messages of a bundle lie, or a part of the manifest."""
        if number >= len(self._bundles):
            num_bytes = len(self._manifest[self._rows_of(number)]) * MANIFEST_BYTES
            return [self._room.slot(self._begun + number)[:num_bytes]]
        bundle = self._bundles[number]
        slot = self._room.slot(self._begun + number)
        return [
            slot[begin : begin + self._messages[m].num_bytes]
            if self._bindings[m].in_place is None
            else self._bindings[m].in_place
            for m, begin in zip(bundle, self._slot_places[number])
        ]

    def _rows_of(self, number: int) -> slice:
        first = (number - len(self._bundles)) * self._rows
        return slice(first, first + self._rows)

    def _filled(self, number: int) -> Iterator[Tensor]:
        self._room.wait_free(self._begun + number, self._timeout_s)
        for index, buffer in enumerate(self._buffers(number)):
            if number >= len(self._bundles):
                buffer.view(torch.int64).copy_(self._manifest[self._rows_of(number)].view(-1))
            else:
                self._fill(self._bundles[number][index], buffer)
            yield buffer
        self._room.publish(self._begun + number)

    def _fill(self, message: int, buffer: Tensor) -> None:
        total = self._sum_of(message)
        if (boxes := self._bindings[message].boxes) is not None:
            pack(boxes, buffer, total)
        elif total is not None:
            add_up(buffer, total)

    def _take(self, number: int, index: int, buffer: Tensor) -> None:
        """Write what has arrived, the `index`-th of its bundle, to where it belongs."""
        if number >= len(self._bundles):
            self._seen[self._rows_of(number)] = buffer.view(torch.int64).view(-1, _WORDS)
            return
        message = self._bundles[number][index]
        total = self._sum_of(message)
        if (boxes := self._bindings[message].boxes) is not None:
            unpack(boxes, buffer, total, eta=self._eta)
        elif total is not None:
            add_up(buffer, total)

    def _sum_of(self, message: int) -> Tensor | None:
        """Where the message's checksum goes."""
        if not self._checksum:
            return None
        return self._manifest[message, _CHECKSUM : _CHECKSUM + 1]

    def _mismatch(self, message: int) -> str:
        seen, expected = self._seen[message].tolist(), self._manifest[message].tolist()
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


def _is_message(views: Sequence[Tensor], wire_dtype: torch.dtype) -> bool:
    """Whether a block lies in a tensor as it would in a message, once."""
    view, *copies = views
    aligned = view.data_ptr() % 8 == 0
    return not copies and view.dtype == wire_dtype and view.is_contiguous() and aligned


def view_of(tensor: Tensor, region: Shape, offset: Sequence[int], shape: Shape) -> Tensor:
    """The block `shape` at `offset` in a region of a local tensor."""
    assert tensor.dim() == len(shape), f"{tuple(tensor.shape)} cannot hold a box of shape {shape}"
    begin = [a + b for a, b in zip(region, offset)]
    fits = all(a + n <= size for a, n, size in zip(begin, shape, tensor.shape))
    assert fits, f"a box of shape {shape} at {begin} does not lie in {tuple(tensor.shape)}"
    first = tensor.storage_offset() + sum(a * stride for a, stride in zip(begin, tensor.stride()))
    return tensor.as_strided(shape, tensor.stride(), first)
