"""The messages of a stream, and which bytes of a rank's tensors each of them holds; the same in every run.

stream   region 0 │ region 1 │ region 2 │ … │ manifest      blocks of a plan's boxes, then a row per message
message  [entry entry] [entry: alone] [entry …]   at most `limit` bytes each; one checksum each
bundle   [message message …] [message …]          what a stream sends in one turn; at most `limit` bytes
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.layouts.boxes import split
from realrl.layouts.layout import Shape
from realrl.layouts.pieces import Region
from realrl.layouts.plan import Stream
from realrl.ops.box_rows import ALIGNMENT
from realrl.realloc.manifest import Manifest
from realrl.realloc.staging import Place
from realrl.realloc.views import Tensors

_ALONE_BYTES = 64 << 10
"""A block of at least this size has a message of its own, which needs no packing if it is contiguous."""
_WORD_BYTES = 8
"""Checksums add 64-bit words."""
_NAMED = 3
"""Largest number of tensors that an error names."""

Copies = tuple[Region, ...]
"""All places of a region in a rank's tensors, of which each has the region's shape."""


class StreamMessages:
    """A stream as the messages that one rank sends or receives, grouped in bundles.

    The last messages are the manifest, with which a receiver verifies the others after the last turn.
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

        `tensors` are this rank's local tensors of the source if it is the root, else of the target. `wire`
        returns the dtype in which a local tensor travels.
        """
        self.index = index
        self.route = stream.route
        self.place = place
        self.rank = rank
        self.is_root = place.parent is None
        regions = list(_regions_of(stream, rank, self.is_root))

        # Copies of one region have the same shape and wire dtype.
        firsts = [tensors[copies[0].local] for copies in regions]
        wire_dtypes = [wire(tensor) for tensor in firsts]
        self.device = firsts[0].device
        content = list(messages(regions, wire_dtypes, limit))

        sizes = [message.num_bytes for message in content]
        where = f"from rank {stream.route.root} to rank {rank}"
        self.manifest = Manifest(index, sizes, where, self.device)
        rows = (self.manifest.region,)
        self.messages = [*content, *messages([rows], [torch.int64], limit)]
        self._num_content = len(content)
        self.bundles = list(bundles(self.messages, limit))

    def is_manifest(self, message: int) -> bool:
        """Return whether a message holds rows of the manifest."""
        return message >= self._num_content

    def names_in(self, message: int) -> str:
        """Return the names of a message's first tensors."""
        names: list[str] = []
        for entry in self.messages[message].entries:
            name = entry.region.tensor
            if name not in names:
                names.append(name)

        text = ", ".join(names[:_NAMED])
        num_more = len(names) - _NAMED
        return f"{text} and {num_more} more" if num_more > 0 else text

    def __str__(self) -> str:
        return f"stream {self.index}, from rank {self.route.root} to {list(self.route.receivers)}"


def _regions_of(stream: Stream, rank: int, is_root: bool) -> Iterator[Copies]:
    """Yield the regions of a rank in the order of the stream, each with all its copies there."""
    for piece in stream.pieces:
        if is_root:
            for region in piece.sources(rank):
                yield (region,)
        else:
            yield from piece.targets(rank)


class Entry(NamedTuple):
    """A block of one copy of a stream's region, at byte `begin` of a message."""

    region: Region
    dtype: torch.dtype
    """The type in which it travels."""
    offset: Shape
    """Where the block begins in the region."""
    shape: Shape
    begin: int


@dataclass(frozen=True, slots=True)
class Message:
    """The unit of sending, with one checksum."""

    entries: tuple[Entry, ...]
    num_bytes: int
    is_alone: bool
    """Whether it is exactly one block, so that either endpoint may send or receive it without a copy."""

    @property
    def begins(self) -> list[int]:
        """Where each entry begins."""
        return [entry.begin for entry in self.entries]

    @property
    def wire_dtypes(self) -> list[torch.dtype]:
        """The type in which each entry travels."""
        return [entry.dtype for entry in self.entries]


def messages(regions: Sequence[Copies], wire_dtypes: Sequence[torch.dtype], limit: int) -> Iterator[Message]:
    """Lay a stream's regions end to end into messages of at most `limit` bytes."""
    entries: list[Entry] = []
    begin = 0

    for block, num_bytes in _blocks(regions, wire_dtypes, limit):
        is_whole_words = num_bytes % _WORD_BYTES == 0
        is_alone = num_bytes >= _ALONE_BYTES and is_whole_words
        is_full = begin + num_bytes > limit
        if entries and (is_alone or is_full):
            yield Message(tuple(entries), begin, False)
            entries = []
            begin = 0

        if is_alone:
            yield Message(tuple(block), num_bytes, True)
            continue

        entries += [entry._replace(begin=begin) for entry in block]
        begin += aligned(num_bytes)

    if entries:
        yield Message(tuple(entries), begin, False)


def aligned(num_bytes: int) -> int:
    """Return `num_bytes` rounded up to the alignment of entries and messages."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _blocks(
    regions: Sequence[Copies], wire_dtypes: Sequence[torch.dtype], limit: int
) -> Iterator[tuple[list[Entry], int]]:
    """Split regions into blocks of at most `limit` bytes; yield each in all its copies, and its size."""
    for copies, dtype in zip(regions, wire_dtypes, strict=True):
        for offset, shape in split(copies[0].shape, limit // dtype.itemsize):
            block = [Entry(region, dtype, offset, shape, 0) for region in copies]
            num_bytes = math.prod(shape) * dtype.itemsize
            yield block, num_bytes


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
