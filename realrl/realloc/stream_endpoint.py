"""One rank's endpoints of streams in one run: what they do with each message, and in which turn.

    turn t      post: pack and send what is due in t, prepare to receive
                finish: wait for what was posted in t - 1, unpack it, and publish it to the readers
    turn t + 1  …

    turn               0        1        2        3        4
    root    (depth 0)  send 0   send 1   send 2
    relay   (depth 1)  recv 0   recv 1   recv 2                      receives k in turn k + 2 * depth - 2
                                         send 0   send 1   send 2    sends k in turn k + 2 * depth
    reader  of relay                     read 0   read 1   read 2    reads k from the relay's ring

All ranks count the same turns. Packing, sending and unpacking overlap, because a rank waits for one turn's
messages after it has posted the next turn's. A rank waits for what was due in an earlier turn of another
rank, or in the same turn of the same or an earlier stream, so no order of ranks can deadlock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.transport import MessageEnd, Pending, Transport
from realrl.base.waiting import wait_for_ranks
from realrl.layouts.layout import Rank
from realrl.ops.box_copies import Boxes, pack, unpack
from realrl.realloc.manifest import MANIFEST
from realrl.realloc.staging import Rings, process_of
from realrl.realloc.stream_messages import StreamMessages, aligned
from realrl.realloc.transfer_failure import TransferFailed
from realrl.realloc.views import Tensors, view_of

_NO_BOXES = Boxes((), (), ())
_WORD_BYTES = 8
"""Checksums add int64 words, which must be aligned."""


class Run(NamedTuple):
    """What the ranks of a transfer agree on for one run."""

    number: int
    """Number of earlier runs."""
    version: int
    eta: float
    checksum: bool
    """Whether every message is guarded by its sum."""
    timeout_s: float


class _Located(NamedTuple):
    """The location of a message's bytes in the tensors of one run."""

    in_place: Tensor | None
    """The part of a tensor that holds them, if they are contiguous there; else they pass through a slot."""
    boxes: Boxes
    """The boxes of tensors from which the slot is packed, or to which it is unpacked."""


class _Due(NamedTuple):
    """A message that is due."""

    buffer: Tensor
    """Its bytes, in place or in a slot of the ring."""
    boxes: Boxes
    checksum: Tensor | None
    """Its place in the manifest, int64 `[1]`; None without checksums, and for the manifest itself."""
    eta: float


class StreamEndpoint:
    """A rank's endpoint of one stream in one run.

    A relay at depth d, with d relays before it, receives bundle k in turn k + 2d - 2 and sends it in turn
    k + 2d. Whatever begins in a turn is complete when the next turn has begun. A message of one contiguous
    block is sent from its tensor or received into its tensor directly. Other messages are packed.
    """

    def __init__(self, stream: StreamMessages, tensors: Tensors, rings: Rings, run: Run) -> None:
        """Locate every message in the tensors of a run.

        A receiver overwrites its tensors if `run.eta` is 1, and blends them otherwise.
        """
        self._stream = stream
        self._run = run
        self._posted: dict[int, list[tuple[MessageEnd, _Due]]] = defaultdict(list)
        """By turn, what was posted in it and may still be on its way."""

        # Readers read from the ring, so a message for them must be in a slot.
        may_be_in_place = stream.place.is_private and (stream.is_root or run.eta == 1.0)
        manifest = stream.manifest.start_run(run.version, sends=stream.is_root)
        tensors = {**tensors, MANIFEST: manifest}
        self._located: list[_Located] = []
        for message in stream.messages:
            views: list[Tensor] = []
            for region, _, offset, shape, _ in message.entries:
                view = view_of(tensors[region.local], region.offset, offset, shape)
                views.append(view)

            if may_be_in_place and message.is_alone and _needs_no_packing(views, message.wire_dtypes[0]):
                flat = views[0].reshape(-1)
                self._located.append(_Located(flat.view(torch.uint8), _NO_BOXES))
            else:
                boxes = Boxes(views, message.begins, message.wire_dtypes)
                self._located.append(_Located(None, boxes))

        # Bundles are numbered across all runs, as the ring's counters are.
        self._first_number = run.number * len(stream.bundles)
        self._slot_bytes = max(map(self._bytes_in_slot, stream.bundles))
        self._ring = rings.ring(stream.index, self._slot_bytes, stream.device, str(stream))

    @property
    def num_turns(self) -> int:
        """Number of turns until this rank has sent its last bundle."""
        return len(self._stream.bundles) + 2 * self._stream.place.depth

    @property
    def staging_bytes(self) -> int:
        """Memory of this rank that the stream's ring takes."""
        return self._stream.place.num_slots * self._slot_bytes

    def post(self, turn: int) -> Iterator[MessageEnd]:
        """Yield the ends of messages that are due in `turn`; the root packs a message just before its end.

        Raises:
            TransferFailed: a reader did not free a slot in time.
        """
        place = self._stream.place
        if not place.is_relay:
            return
        sent = turn - 2 * place.depth
        if place.parent is not None:
            yield from self._receive(turn, sent + 2, place.parent)
        if not self._has(sent):
            return

        number = self._first_number + sent
        is_root = self._stream.is_root
        if is_root:
            self._ring.wait_free(number, self._run.timeout_s)
        for due in self._messages(sent):
            # Each is packed on its own, so that it is sent out of the cache.
            if is_root:
                pack(due.boxes, due.buffer, due.checksum)
            for child in place.children:
                end = MessageEnd(True, due.buffer, process_of(child), self._stream.index)
                self._posted[turn].append((end, due))
                yield end
        if is_root:
            self._ring.publish(number)

    def finish(self, turn: int, arrivals: Iterator[Pending]) -> None:
        """Complete what was posted in `turn`, the next of `arrivals`; publish it, or read what was published.

        Raises:
            TransferFailed: a message was not sent or received, or a reader's relay did not publish in time.
        """
        for end, due in self._posted.pop(turn, ()):
            arrival = next(arrivals, None)
            assert arrival is not None, "the transport returned less than one Pending per message"
            try:
                wait_for_ranks(arrival.wait)
            except (RuntimeError, OSError) as error:
                way = "to" if end.sends else "from"
                what = f"a message of stream {end.tag} {way} rank {end.peer}"
                raise TransferFailed(f"{what} did not get through: {error}") from error
            # Unpacked at once, while it is in the cache.
            if not end.sends:
                unpack(due.boxes, due.buffer, due.checksum, eta=due.eta)

        place = self._stream.place
        sent = turn - 2 * place.depth
        bundle = sent + 2 if place.is_relay else sent
        if place.parent is None or not self._has(bundle):
            return
        number = self._first_number + bundle
        if place.is_relay:
            self._ring.publish(number)
            return
        self._ring.wait_put(number, place.parent, self._run.timeout_s)
        for due in self._messages(bundle):
            unpack(due.boxes, due.buffer, due.checksum, eta=due.eta)
        self._ring.publish_taken(number, self._stream.rank)

    def _receive(self, turn: int, bundle: int, parent: Rank) -> Iterator[MessageEnd]:
        """Yield the ends that receive a bundle."""
        if not self._has(bundle):
            return
        self._ring.wait_free(self._first_number + bundle, self._run.timeout_s)
        for due in self._messages(bundle):
            end = MessageEnd(False, due.buffer, process_of(parent), self._stream.index)
            self._posted[turn].append((end, due))
            yield end

    def _messages(self, bundle: int) -> Iterator[_Due]:
        """Yield the messages of a bundle."""
        slot = self._ring.slot(self._first_number + bundle)
        begin = 0
        for index in self._stream.bundles[bundle]:
            buffer, boxes = self._located[index]
            if buffer is None:
                num_bytes = self._stream.messages[index].num_bytes
                buffer = slot[begin : begin + num_bytes]
                begin += aligned(num_bytes)

            if self._stream.is_manifest(index):
                yield _Due(buffer, boxes, None, 1.0)
            else:
                checksum = self._stream.manifest.checksum(index) if self._run.checksum else None
                yield _Due(buffer, boxes, checksum, self._run.eta)

    def _bytes_in_slot(self, bundle: Sequence[int]) -> int:
        """Return the bytes that a bundle takes of a slot: none for a message that is in place."""
        total = 0
        for index in bundle:
            if self._located[index].in_place is None:
                total += aligned(self._stream.messages[index].num_bytes)
        return total

    def _has(self, bundle: int) -> bool:
        """Return whether the stream has a bundle of this number."""
        return 0 <= bundle < len(self._stream.bundles)


def take_turns(endpoints: Sequence[StreamEndpoint], transport: Transport) -> None:
    """Send and receive every bundle of this rank's streams."""
    last_turn = max((endpoint.num_turns for endpoint in endpoints), default=-1)
    arrivals: Iterator[Pending] = iter(())
    for turn in range(last_turn + 1):
        due = chain.from_iterable(endpoint.post(turn) for endpoint in endpoints)
        posted = transport.post(due)
        # Waiting only after posting lets this turn's packing overlap with the earlier turn's messages.
        for endpoint in endpoints:
            endpoint.finish(turn - 1, arrivals)
        surplus = list(arrivals)
        assert not surplus, "the transport returned more than one Pending per message"
        arrivals = iter(posted)


def _needs_no_packing(views: Sequence[Tensor], wire_dtype: torch.dtype) -> bool:
    """Return whether a block has one copy here, and that copy's bytes are those of its message."""
    if len(views) != 1:
        return False
    view = views[0]
    is_aligned = view.data_ptr() % _WORD_BYTES == 0
    return view.dtype == wire_dtype and view.is_contiguous() and is_aligned
