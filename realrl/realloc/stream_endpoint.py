"""One rank's endpoint of a stream: what it does with each message, and in which turn.

    turn               0        1        2        3        4
    root    (depth 0)  send 0   send 1   send 2
    relay   (depth 1)  recv 0   recv 1   recv 2                      receives k in turn k + 2 * depth - 2
                                         send 0   send 1   send 2    sends k in turn k + 2 * depth
    reader  of relay                     read 0   read 1   read 2    reads k from the relay's ring

The last bundles hold the manifest, with which a receiver verifies all messages after the last turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.transport import MessageEnd
from realrl.layouts.layout import Rank
from realrl.layouts.pieces import Region
from realrl.layouts.plan import Stream
from realrl.ops.box_copies import Boxes, add_up, pack, unpack
from realrl.realloc.manifest import MANIFEST_BYTES, Manifest
from realrl.realloc.staging import Message, Place, aligned, bundles, messages, process_of
from realrl.realloc.staging_buffers import SlotRing
from realrl.realloc.transfer_failure import TransferFailed
from realrl.realloc.views import Tensors, view_of

_NAMED = 3
"""Largest number of tensors that an error names."""
_WORD_BYTES = 8
"""Checksums add int64 words, which must be aligned."""


class Operation(NamedTuple):
    """One end of a message that is due, and what to do on arrival."""

    end: MessageEnd
    take: Callable[[], None] | None = None
    """To be called when the message has arrived."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Location of a message's bytes in this run: contiguous in a tensor, or as boxes of several tensors."""

    in_place: Tensor | None
    boxes: Boxes | None


class StreamEndpoint:
    """A rank's endpoint of one stream: bundles of messages, followed by their manifest.

    A relay at depth d, with d relays before it, receives bundle k in turn k + 2d - 2 and sends it in turn
    k + 2d. Whatever begins in a turn is complete when the next turn has begun. A message of one contiguous
    block is sent from its tensor or received into its tensor directly. Other messages are packed.
    """

    def __init__(
        self,
        index: int,
        stream: Stream,
        place: Place,
        rank: int,
        tensors: Tensors,
        wire: Callable[[Tensor], torch.dtype],
        limit: int,
    ) -> None:
        """Lay out the plan's `index`-th stream as messages and bundles of at most `limit` bytes.

        `tensors` are this rank's local tensors of the source or of the target. `wire` returns the dtype in
        which a local tensor travels.
        """
        self.index = index
        self.stream = stream
        self.place = place
        self._rank = rank
        self.is_root = place.parent is None
        self._regions = list(self._own_regions())

        # Copies of one region have the same shape and wire dtype.
        firsts = [copies[0] for copies in self._regions]
        self._wire_dtypes = [wire(tensors[region.local]) for region in firsts]
        self.device = tensors[firsts[0].local].device
        self._messages = self._lay_out(firsts, limit)
        self._bundles = list(bundles(self._messages, limit))

        self._rows = limit // MANIFEST_BYTES
        """Number of rows of the manifest that fit into a bundle."""
        num_manifest_bundles = -(-len(self._messages) // self._rows)
        self._num_bundles = len(self._bundles) + num_manifest_bundles
        sizes = [message.num_bytes for message in self._messages]
        self._manifest = Manifest(index, sizes, self.device)
        self.staging_bytes = 0
        """Memory of this rank that the stream's ring took in the last run."""

    @property
    def slot_bytes(self) -> int:
        """Size of the longest bundle that this endpoint buffers, known after `bind`."""
        most_rows = min(self._rows, len(self._messages))
        manifest_bytes = most_rows * MANIFEST_BYTES
        bundle_sizes = [begins[-1] for begins in self._slot_begins]
        return max([*bundle_sizes, manifest_bytes])

    @property
    def num_turns(self) -> int:
        """Number of turns until this endpoint has sent its last bundle."""
        return self._num_bundles + 2 * self.place.depth

    def bind(self, tensors: Tensors, *, version: int, eta: float, checksum: bool) -> None:
        """Locate every message in the tensors of a run.

        A receiver overwrites its tensors if `eta` is 1, and blends them otherwise. `checksum` guards every
        message by its sum.
        """
        self._eta = eta
        self._checksum = checksum
        self._manifest.start_run(version)

        overwrites = self.is_root or eta == 1.0
        # Readers read from the ring, so a message for them must be in a slot.
        is_private = self.place.is_relay and not self.place.readers
        may_be_direct = is_private and overwrites
        self._bindings = [self._binding(message, tensors, may_be_direct) for message in self._messages]
        self._slot_begins = [self._begins_in(bundle) for bundle in self._bundles]

    def start_run(self, ring: SlotRing, *, runs: int, timeout_s: float) -> None:
        """Prepare the first turn of a run that follows `runs` earlier ones."""
        self._ring = ring
        # Bundles are numbered across all runs, as the ring's counters are.
        self._first_number = runs * self._num_bundles
        self._timeout_s = timeout_s

    def post(self, turn: int) -> Iterator[Operation]:
        """Yield the operations that are due in `turn`.

        The root packs a message just before it yields it, so that the message is sent out of the cache.

        Raises:
            TransferFailed: a reader did not free a slot in time.
        """
        if not self.place.is_relay:
            return
        sent = turn - 2 * self.place.depth
        received = sent + 2
        parent = self.place.parent
        if parent is not None and 0 <= received < self._num_bundles:
            yield from self._receives(received, parent)
        if 0 <= sent < self._num_bundles:
            yield from self._sends(sent)

    def finish(self, turn: int) -> None:
        """Complete what began in `turn`: a relay publishes its bundle, a reader copies it to its tensors.

        Raises:
            TransferFailed: a reader's relay did not publish in time.
        """
        parent = self.place.parent
        if parent is None:
            return
        number = turn - 2 * self.place.depth
        if self.place.is_relay:
            number += 2
        if not 0 <= number < self._num_bundles:
            return
        if self.place.is_relay:
            self._ring.publish(self._first_number + number)
        else:
            self._read(number, parent)

    def finish_run(self) -> None:
        """Verify all messages after the last turn.

        Raises:
            TransferFailed: a message was of another version or stream, or its checksum differs.
        """
        self.staging_bytes = self.place.num_slots * self.slot_bytes
        # Both refer to memory of this run.
        del self._bindings, self._ring
        if self.is_root:
            return
        message = self._manifest.first_difference()
        if message is not None:
            raise TransferFailed(self._describe_difference(message))

    def _own_regions(self) -> Iterator[tuple[Region, ...]]:
        """Yield the regions of this rank in the order of the stream, each with all its copies here."""
        for piece in self.stream.pieces:
            if self.is_root:
                for region in piece.sources(self._rank):
                    yield (region,)
            else:
                yield from piece.targets(self._rank)

    def _lay_out(self, firsts: Sequence[Region], limit: int) -> list[Message]:
        """Return the messages of regions, of each of which `firsts` has one copy."""
        shapes = [region.shape for region in firsts]
        itemsizes = [dtype.itemsize for dtype in self._wire_dtypes]
        return list(messages(shapes, itemsizes, limit))

    def _binding(self, message: Message, tensors: Tensors, may_be_direct: bool) -> Binding:
        """Locate a message's bytes in `tensors`."""
        views: list[Tensor] = []
        begins: list[int] = []
        wire_dtypes: list[torch.dtype] = []

        for entry in message.entries:
            wire_dtype = self._wire_dtypes[entry.region]
            for region in self._regions[entry.region]:
                view = view_of(
                    tensors[region.local],
                    region.offset,
                    entry.offset,
                    entry.shape,
                )
                views.append(view)
                begins.append(entry.begin)
                wire_dtypes.append(wire_dtype)

        is_candidate = may_be_direct and message.is_alone
        if is_candidate and _needs_no_packing(views, wire_dtypes[0]):
            flat = views[0].reshape(-1)
            return Binding(flat.view(torch.uint8), None)

        return Binding(None, Boxes(views, begins, wire_dtypes))

    def _begins_in(self, bundle: range) -> list[int]:
        """Return where each message begins in the bundle's slot, then where the last one ends.

        A message that is in place takes no bytes of the slot.
        """
        begins = [0]
        for message in bundle:
            is_in_slot = self._bindings[message].in_place is None
            size = self._messages[message].num_bytes if is_in_slot else 0
            end = begins[-1] + aligned(size)
            begins.append(end)

        return begins

    def _is_manifest(self, number: int) -> bool:
        """Return whether a bundle is a part of the manifest."""
        return number >= len(self._bundles)

    def _buffers(self, number: int) -> list[Tensor]:
        """Return the bytes of each message of a bundle, or of a part of the manifest."""
        slot = self._ring.slot(self._first_number + number)
        if self._is_manifest(number):
            rows = self._rows_of(number)
            num_bytes = self._manifest.num_bytes(rows)
            return [slot[:num_bytes]]

        buffers: list[Tensor] = []
        begins = self._slot_begins[number]
        for message, begin in zip(self._bundles[number], begins):
            buffer = self._bindings[message].in_place
            if buffer is None:
                end = begin + self._messages[message].num_bytes
                buffer = slot[begin:end]

            buffers.append(buffer)

        return buffers

    def _rows_of(self, number: int) -> slice:
        """Return the rows of the manifest that a bundle after the messages holds."""
        first = (number - len(self._bundles)) * self._rows
        return slice(first, first + self._rows)

    def _receives(self, number: int, parent: Rank) -> Iterator[Operation]:
        """Yield the operations that receive a bundle."""
        self._ring.wait_free(self._first_number + number, self._timeout_s)
        buffers = self._buffers(number)

        for index, buffer in enumerate(buffers):
            end = MessageEnd(
                sends=False,
                buffer=buffer,
                peer=process_of(parent),
                tag=self.index,
            )
            take = partial(
                self._take,
                number,
                index,
                buffer,
            )
            yield Operation(end, take)

    def _sends(self, number: int) -> Iterator[Operation]:
        """Yield the operations that send a bundle to every child."""
        buffers = self._filled(number) if self.is_root else self._buffers(number)
        for buffer in buffers:
            for peer in self.place.children:
                end = MessageEnd(
                    sends=True,
                    buffer=buffer,
                    peer=process_of(peer),
                    tag=self.index,
                )
                yield Operation(end)

    def _filled(self, number: int) -> Iterator[Tensor]:
        """Yield each message of a bundle as soon as it is packed, and publish the bundle after the last."""
        ring_number = self._first_number + number
        self._ring.wait_free(ring_number, self._timeout_s)
        buffers = self._buffers(number)

        for index, buffer in enumerate(buffers):
            if self._is_manifest(number):
                self._manifest.write(self._rows_of(number), buffer)
            else:
                self._fill(self._bundles[number][index], buffer)

            yield buffer

        self._ring.publish(ring_number)

    def _fill(self, message: int, buffer: Tensor) -> None:
        """Pack a message into `buffer`, and write its checksum to the manifest."""
        total = self._checksum_of(message)
        boxes = self._bindings[message].boxes
        if boxes is not None:
            pack(boxes, buffer, total)
        elif total is not None:
            add_up(buffer, total)

    def _read(self, number: int, parent: Rank) -> None:
        """Copy a bundle from the relay's ring to this rank's tensors."""
        ring_number = self._first_number + number
        self._ring.wait_put(ring_number, parent, self._timeout_s)
        buffers = self._buffers(number)
        for index, buffer in enumerate(buffers):
            self._take(number, index, buffer)
        self._ring.publish_taken(ring_number, self._rank)

    def _take(self, number: int, index: int, buffer: Tensor) -> None:
        """Write the `index`-th message of a bundle, which has arrived in `buffer`, to its tensors."""
        if self._is_manifest(number):
            self._manifest.read(self._rows_of(number), buffer)
            return

        message = self._bundles[number][index]
        total = self._checksum_of(message)
        boxes = self._bindings[message].boxes
        if boxes is not None:
            unpack(
                boxes,
                buffer,
                total,
                eta=self._eta,
            )
        elif total is not None:
            add_up(buffer, total)

    def _checksum_of(self, message: int) -> Tensor | None:
        """Return the manifest's place for the message's checksum, int64 `[1]`, or None without checksums."""
        if not self._checksum:
            return None
        return self._manifest.checksum(message)

    def _describe_difference(self, message: int) -> str:
        """Describe how a message differs from what was due."""
        where = f"message {message} from rank {self.stream.route.root} to rank {self._rank}"
        names = self._names(self._messages[message])
        return self._manifest.describe_difference(message, where, names)

    def _names(self, message: Message) -> str:
        """Return the names of a message's first tensors."""
        names: list[str] = []
        for entry in message.entries:
            copies = self._regions[entry.region]
            name = copies[0].tensor
            if name not in names:
                names.append(name)

        text = ", ".join(names[:_NAMED])
        num_more = len(names) - _NAMED
        return f"{text} and {num_more} more" if num_more > 0 else text

    def __str__(self) -> str:
        route = self.stream.route
        return f"stream {self.index}, from rank {route.root} to {list(route.receivers)}"


def _needs_no_packing(views: Sequence[Tensor], wire_dtype: torch.dtype) -> bool:
    """Return whether a block has one copy here, and that copy's bytes are those of its message."""
    if len(views) != 1:
        return False
    view = views[0]
    is_aligned = view.data_ptr() % _WORD_BYTES == 0
    return view.dtype == wire_dtype and view.is_contiguous() and is_aligned
