"""By way of files: torch.distributed.checkpoint, saved under one layout and loaded under the other."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import LoadPlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from benchmarks.context import Context
from benchmarks.pieces import pieces, shares
from benchmarks.workload import Locals
from realrl.layouts.layout import Box, Shape


class Checkpoint:
    """Saves each element once, shared out over its holders, and loads what each rank's target asks for.

    Takes the package's defaults, fsync among them. `bytes_moved` is what is written and what is read;
    `staging_bytes` what this rank keeps in files meanwhile.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        source, target = context.layouts
        extents = source.extents()
        own = shares(source).get(context.rank, [])
        self._saved = _state(context.source, own, extents)
        self._loaded = _state(context.target, context.target.boxes, extents)
        self.staging_bytes = context.num_bytes(own)
        written = sum(context.num_bytes(boxes) for boxes in shares(source).values())
        read = sum(piece.numel * len(piece.wanting) for piece in pieces(source, target))
        self.bytes_moved = written + read * context.dtype.itemsize
        self._directory = context.folder / "checkpoint"
        logging.getLogger("torch.distributed.checkpoint").setLevel(logging.ERROR)

    def run(self) -> None:
        dcp.save(self._saved, checkpoint_id=self._directory, planner=_SavePlanner())
        dcp.load(self._loaded, checkpoint_id=self._directory, planner=_LoadPlanner())

    def clean(self) -> None:
        if self._context.rank == 0:
            shutil.rmtree(self._directory)


class _Sharded:
    """Boxes of one global tensor, as the package's planners ask for them."""

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        self._shape, self._dtype = torch.Size(shape), dtype
        self._views: dict[torch.Size, Tensor] = {}

    def add(self, box: Box, view: Tensor) -> None:
        self._views[torch.Size(box.start)] = view

    def size(self) -> torch.Size:
        return self._shape

    def __create_write_items__(self, name: str, _) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(name, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=chunk, properties=TensorProperties(dtype=self._dtype), size=self._shape
                ),
            )
            for chunk in self.chunks()
        ]

    def chunks(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(start, view.size()) for start, view in self._views.items()]

    def view(self, index: MetadataIndex) -> Tensor:
        return self._views[index.offset]


class _SavePlanner(dcp.DefaultSavePlanner):
    def lookup_object(self, index: MetadataIndex) -> Tensor:
        return self.state_dict[index.fqn].view(index)


class _LoadPlanner(dcp.DefaultLoadPlanner):
    def set_up_planner(self, state_dict, metadata=None, is_coordinator=False) -> None:
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def create_local_plan(self) -> LoadPlan:
        saved = self.metadata.state_dict_metadata
        chunks = ((name, sharded.chunks()) for name, sharded in self.state_dict.items())
        items = (create_read_items_for_chunk_list(name, saved[name], wanted) for name, wanted in chunks)
        return LoadPlan([item for several in items for item in several])

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        return self.state_dict[index.fqn].view(index)


def _state(held: Locals, boxes: Sequence[Box], extents: dict[str, Shape]) -> dict[str, _Sharded]:
    state: dict[str, _Sharded] = {}
    for box in boxes:
        for common, view in held.parts(box):
            if box.tensor not in state:
                state[box.tensor] = _Sharded(extents[box.tensor], view.dtype)
            state[box.tensor].add(common, view)
    return state
