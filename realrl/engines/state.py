"""All that a rank's model would need to be gone on with, as boxes that any layout can be filled from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from realrl.layouts.layout import Box, Layout, Rank, Shard
from realrl.parallel.zero_shards import Block
from realrl.realloc import shard_files as shards


@dataclass(frozen=True)
class State:
    """A rank's share of the state: flat tensors of the weights' shape, and small ones that all ranks have."""

    rank: Rank
    blocks: Sequence[Block]
    """What lies where in each flat tensor."""
    held: Sequence[Shard]
    """The boxes in the blocks."""
    flat: Mapping[str, Tensor]
    """By what they are: masters, moments, weights."""
    common: Mapping[str, Tensor]

    def copied(self) -> State:
        """In host memory, as it is now."""
        flat, common = ({name: _on_host(t) for name, t in of.items()} for of in (self.flat, self.common))
        return replace(self, flat=flat, common=common)

    def write(self, directory: Path) -> Path:
        return shards.write(directory, self._layout(), self.rank, self._tensors())

    def read(self, directory: Path) -> None:
        """Take the values that such states, of whatever layout, were written with."""
        shards.read(directory, self._layout(), self.rank, self._tensors())

    def _layout(self) -> Layout:
        flat = [_named(shard, kind) for kind in self.flat for shard in self.held]
        zeros = [(name, (0,) * tensor.dim(), tuple(tensor.shape)) for name, tensor in self.common.items()]
        return Layout.of([*flat, *(Shard(self.rank, Box(n, z, shape), n, z) for n, z, shape in zeros)])

    def _tensors(self) -> dict[str, Tensor]:
        views = {f"{kind}/{b.name}": b.of(flat) for kind, flat in self.flat.items() for b in self.blocks}
        return {**views, **self.common}


def _named(shard: Shard, kind: str) -> Shard:
    box = replace(shard.box, tensor=f"{kind}/{shard.box.tensor}")
    return replace(shard, box=box, local=f"{kind}/{shard.local}")


def _on_host(tensor: Tensor) -> Tensor:
    """Pinned where it comes from a CUDA device."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda).copy_(tensor)
