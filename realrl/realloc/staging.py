"""How a pair's copies are laid into messages of bounded size: pure, and the same at both ends."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from realrl.layouts.plan import Copy, TransferPlan

ALIGNMENT = 16
"""Bytes; no dtype has larger elements, so that each piece of a message can be viewed in its own dtype."""


def message_bytes(plan: TransferPlan, staging_bytes: int) -> int:
    """The longest message with which no rank, speaking to all its peers at once, exceeds `staging_bytes`."""
    num_peers = Counter(rank for pair in plan.pairs for rank in pair)
    busiest = max(num_peers.values(), default=1)
    limit = staging_bytes // busiest // ALIGNMENT * ALIGNMENT
    if not limit:
        raise ValueError(
            f"staging_bytes must be at least {busiest * ALIGNMENT} for {busiest} peers, got {staging_bytes}"
        )
    return limit


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements that lie at byte `begin` of a message, and where they come from or go to."""

    begin: int
    copies: tuple[Copy, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """What one rank sends another in one turn."""

    pieces: tuple[Piece, ...]
    num_bytes: int


def messages(copies: Sequence[Copy], itemsize: Callable[[Copy], int], limit: int) -> Iterator[Message]:
    """Lay a pair's copies end to end into messages of at most `limit` bytes."""
    pieces: list[Piece] = []
    begin = 0
    for parts, num_bytes in _parts(copies, itemsize, limit):
        if begin + num_bytes > limit:
            yield Message(tuple(pieces), begin)
            pieces, begin = [], 0
        pieces.append(Piece(begin, parts))
        begin += num_bytes
    if pieces:
        yield Message(tuple(pieces), begin)


def _parts(
    copies: Sequence[Copy], itemsize: Callable[[Copy], int], limit: int
) -> Iterator[tuple[tuple[Copy, ...], int]]:
    payloads: dict[tuple, list[Copy]] = defaultdict(list)
    for copy in copies:
        payloads[copy.payload].append(copy)
    for group in payloads.values():
        size = itemsize(group[0])
        for parts in zip(*(copy.pieces(limit // size) for copy in group), strict=True):
            yield parts, -(-parts[0].numel * size // ALIGNMENT) * ALIGNMENT
