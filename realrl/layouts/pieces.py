"""The units of a transfer plan: blocks of tensors that both layouts cut alike, and pieces of blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from realrl.layouts.boxes import Cell
from realrl.layouts.layout import Part, Pattern, Rank, Shape, lengths_of

_LONG_DIM = 64
"""A dim of at least this length can be cut accurately enough: to 1/64 of a block."""


@dataclass(frozen=True, slots=True)
class Region:
    """`shape` elements of the global tensor `tensor`, at `offset` of the local tensor `local`."""

    tensor: str
    local: str
    offset: Shape
    shape: Shape


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """One cell of several tensors that have the same two patterns.

    `source_keys` and `target_keys` are the indices of these tensors in the patterns, in the same order.
    """

    source: Pattern
    target: Pattern
    source_keys: tuple[int, ...]
    target_keys: tuple[int, ...]
    cell: Cell

    @property
    def shape(self) -> Shape:
        """Return the shape of the cell."""
        return lengths_of(self.cell.start, self.cell.stop)

    @property
    def numel(self) -> int:
        """Return the number of elements of all tensors."""
        return math.prod(self.shape) * len(self.source_keys)

    @property
    def cut_dim(self) -> int:
        """Return the dim along which the block is cut if several ranks send a part of it.

        This is the outermost long dim, because cuts there leave the largest contiguous runs. Without a long
        dim it is the longest.
        """
        shape = self.shape
        longest = 0
        for dim, length in enumerate(shape):
            if length >= _LONG_DIM:
                return dim
            if length > shape[longest]:
                longest = dim
        return longest

    @property
    def holders(self) -> frozenset[Rank]:
        """Return the ranks that hold the cell in the source layout."""
        return _ranks_of(self.cell.held)

    @property
    def wanting(self) -> frozenset[Rank]:
        """Return the ranks that hold the cell in the destination layout."""
        return _ranks_of(self.cell.wanted)

    def whole(self) -> Piece:
        """Return the block as one piece."""
        num_tensors = len(self.source_keys)
        cell = self.cell
        return Piece(self, 0, num_tensors, cell.start, cell.stop)


def _ranks_of(parts: Iterable[Part]) -> frozenset[Rank]:
    """Return the ranks that hold any of `parts`."""
    ranks: set[Rank] = set()
    for part in parts:
        ranks.update(part.ranks)
    return frozenset(ranks)


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """The range `[start, stop)` of the tensors `[first, last)` of a block."""

    block: Block
    first: int
    last: int
    start: Shape
    stop: Shape

    @property
    def shape(self) -> Shape:
        """Return the shape of the range, which is the same in every tensor."""
        return lengths_of(self.start, self.stop)

    @property
    def numel(self) -> int:
        """Return the number of elements of all tensors."""
        num_tensors = self.last - self.first
        return math.prod(self.shape) * num_tensors

    def sources(self, rank: Rank) -> Iterator[Region]:
        """Yield where `rank` holds the piece in the source layout, one region per tensor."""
        block = self.block
        part = _first_part_of(rank, block.cell.held)
        assert part is not None, f"rank {rank} holds nothing of {block.source.tensor}"

        # All tensors of a block have the same parts, and so the same offset and shape.
        offset = part.at(self.start)
        shape = self.shape
        keys = block.source_keys[self.first : self.last]
        for key in keys:
            yield _region(block.source, key, part, offset, shape)

    def targets(self, rank: Rank) -> Iterator[tuple[Region, ...]]:
        """Yield where `rank` wants the piece in the destination layout, for each tensor all of its places."""
        block = self.block
        shape = self.shape
        places = []
        for part in block.cell.wanted:
            if rank in part.ranks:
                places.append((part, part.at(self.start)))

        for key in block.target_keys[self.first : self.last]:
            regions = []
            for part, offset in places:
                regions.append(_region(block.target, key, part, offset, shape))
            yield tuple(regions)


def _first_part_of(rank: Rank, parts: Iterable[Part]) -> Part | None:
    """Return the first of `parts` that `rank` holds."""
    for part in parts:
        if rank in part.ranks:
            return part
    return None


def _region(pattern: Pattern, key: int, part: Part, offset: Shape, shape: Shape) -> Region:
    """Return the region at `offset` of the local tensor of `part`, for the tensor at index `key`."""
    tensor = pattern.name(pattern.tensor, key)
    local = pattern.name(part.local, key)
    return Region(tensor, local, offset, shape)
