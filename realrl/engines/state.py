"""Everything needed to resume one rank's model, as boxes that any layout can load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from realrl.layouts.layout import Box, Layout, Rank, Shard
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups
from realrl.parallel.optimizer import ShardedAdamW
from realrl.parallel.zero_shards import Block, blocks_of, shards_of, share_of
from realrl.realloc import shard_files


@dataclass(frozen=True)
class State:
    """A rank's shard of the state: flat tensors of the weights' shape, and small ones that all ranks have."""

    rank: Rank
    blocks: Sequence[Block]
    """The blocks of local tensors that lie in each flat tensor."""
    held: Sequence[Shard]
    """The boxes in the blocks."""
    flat: Mapping[str, Tensor]
    """Masters, moments or weights, by these names."""
    common: Mapping[str, Tensor]

    def copied(self) -> State:
        """Return a copy in host memory."""
        flat = {name: _on_host(tensor) for name, tensor in self.flat.items()}
        common = {name: _on_host(tensor) for name, tensor in self.common.items()}
        return replace(self, flat=flat, common=common)

    def write(self, directory: Path) -> Path:
        """Write this rank's file; return it."""
        return shard_files.write(
            directory,
            self._layout(),
            self.rank,
            self._tensors(),
        )

    def read(self, directory: Path) -> None:
        """Fill the tensors from the files that ranks of any layout wrote to `directory`.

        Raises:
            ValueError: a tensor is missing, or ends before the end of what is wanted.
        """
        shard_files.read(
            directory,
            self._layout(),
            self.rank,
            self._tensors(),
        )

    def _layout(self) -> Layout:
        """Return this rank's boxes, which are named by kind and tensor."""
        shards: list[Shard] = []
        for kind in self.flat:
            shards += [_named(shard, kind) for shard in self.held]
        for name, tensor in self.common.items():
            zeros = (0,) * tensor.dim()
            box = Box(name, zeros, tuple(tensor.shape))
            shards.append(Shard(self.rank, box, name, zeros))

        return Layout.of(shards)

    def _tensors(self) -> dict[str, Tensor]:
        """Return the blocks as views of the flat tensors, and the common tensors."""
        views: dict[str, Tensor] = {}
        for kind, flat in self.flat.items():
            for block in self.blocks:
                views[f"{kind}/{block.name}"] = block.of(flat)

        return {**views, **self.common}


def state_of(layout: Layout, groups: Groups, weights: FlatTensors, optimizer: ShardedAdamW | None) -> State:
    """Return the state of this rank's weights, or of their training, as views.

    Ranks of a data-parallel group each hold their share of it.
    """
    share = share_of(len(weights.buffer), groups)
    shapes = {name: tuple(weight.shape) for name, weight in weights.views.items()}
    blocks = list(blocks_of(weights.spans, shapes, share))
    held = list(shards_of(iter(blocks), layout, groups.rank))
    if optimizer is not None:
        return State(
            groups.rank,
            blocks,
            held,
            optimizer.sharded,
            optimizer.common,
        )
    own_weights = weights.buffer[slice(*share)]
    return State(
        groups.rank,
        blocks,
        held,
        {"weights": own_weights},
        {},
    )


def _named(shard: Shard, kind: str) -> Shard:
    """Return a shard of the tensors of one kind."""
    box = replace(shard.box, tensor=f"{kind}/{shard.box.tensor}")
    return replace(shard, box=box, local=f"{kind}/{shard.local}")


def _on_host(tensor: Tensor) -> Tensor:
    """Return a copy in host memory, pinned where it comes from a CUDA device."""
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return host.copy_(tensor)
