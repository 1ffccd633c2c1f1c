"""What a method gets: the pair, this rank's tensors, and room for its messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.workload import Locals, Pair
from realrl.layouts.layout import Box, Layout


class Scratch:
    """One buffer that all methods lay their messages into, so that none pays for fresh pages."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffer = torch.empty(0, dtype=torch.uint8, device=device)
        self.peak_bytes = 0

    def buffers(self, *sizes: int) -> list[Tensor]:
        """Flat buffers of so many bytes; what was given before is given up."""
        rounded = [-(-size // 64) * 64 for size in sizes]
        total = sum(rounded)
        self.peak_bytes = max(self.peak_bytes, sum(sizes))
        if total > len(self._buffer):
            self._buffer = torch.zeros(total, dtype=torch.uint8, device=self._buffer.device)
        return [part[:size] for part, size in zip(self._buffer[:total].split(rounded), sizes)]


@dataclass
class Context:
    """One pair, as one rank sees it."""

    pair: Pair
    rank: int
    source: Locals
    target: Locals
    dtype: torch.dtype
    staging_bytes: int
    group: dist.ProcessGroup
    """The pair's ranks."""
    scratch: Scratch
    folder: Path
    """For files; removed at the end."""
    groups: dict[tuple[int, ...], dist.ProcessGroup] = field(default_factory=dict)

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        return self.pair.layouts

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.pair.ranks

    @property
    def takes_part(self) -> bool:
        return self.rank in self.ranks

    def group_of(self, ranks: Sequence[int]) -> dist.ProcessGroup:
        """The group of some ranks. Collective over all workers."""
        key = tuple(sorted(ranks))
        if key not in self.groups:
            self.groups[key] = dist.new_group(list(key))
        return self.groups[key]

    def num_bytes(self, boxes: Sequence[Box]) -> int:
        return self.dtype.itemsize * sum(box.numel for box in boxes)

    def blocks(self, boxes: Sequence[Box], buffer: Tensor) -> Iterator[tuple[Box, Tensor]]:
        """Boxes with their places in a buffer, where they lie end to end."""
        flat = buffer.view(self.dtype)
        begin = 0
        for box in boxes:
            yield box, flat[begin : begin + box.numel].view(box.shape)
            begin += box.numel

    def pack(self, boxes: Sequence[Box], buffer: Tensor) -> None:
        for box, block in self.blocks(boxes, buffer):
            self.source.read(box, block)

    def unpack(self, boxes: Sequence[Box], buffer: Tensor) -> None:
        for box, block in self.blocks(boxes, buffer):
            self.target.write(box, block)
