"""Shard files: each holds one rank's boxes and their positions.

Ranks write them without exchanging messages. Any layout can be read from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from realrl.base.files import write_aside
from realrl.layouts.layout import Box, Layout, Rank, Shape, Shard
from realrl.realloc.checkpoint import read_boxes

_SHARDS = "shards"
"""Key of the file's metadata that lists its boxes."""


class _Held(msgspec.Struct, array_like=True):
    """A shard in a file's metadata."""

    tensor: str
    start: Shape
    stop: Shape
    local: str
    offset: Shape


def write(directory: Path, layout: Layout, rank: Rank, tensors: Mapping[str, Tensor]) -> Path:
    """Write `rank`'s local tensors of `layout`, which are in host memory; return the file."""
    path = directory / _name(rank)
    held: list[_Held] = []

    for shard in layout.shards(rank):
        box = shard.box
        held.append(_Held(box.tensor, box.start, box.stop, shard.local, shard.offset))

    metadata = {_SHARDS: msgspec.json.encode(held).decode()}
    write_aside(path, lambda aside: save_file(dict(tensors), aside, metadata=metadata))
    return path


def read(directory: Path, layout: Layout, rank: Rank, target: Mapping[str, Tensor]) -> None:
    """Fill `rank`'s local tensors of `layout` from the shard files in `directory`.

    If the rank's own file holds exactly the boxes that it wants, the rank reads only this file. Copies of a
    box that differ between ranks then come back unchanged.

    Raises:
        ValueError: a tensor is missing, or ends before the end of what is wanted.
    """
    wanted = layout.only(rank)
    own_file = directory / _name(rank)
    files = Layout.of(_held(own_file) if own_file.is_file() else ())
    if _boxes(files, own_file.name) != _boxes(wanted, rank):
        files = _all_files(directory)
        _check_held(directory, files, wanted)

    read_boxes(directory, files, wanted, rank, target)


def _name(rank: Rank) -> str:
    return f"rank-{rank}.safetensors"


def _all_files(directory: Path) -> Layout:
    """Return the layout of all shard files in a directory."""
    shards: list[Shard] = []
    for path in sorted(directory.glob(_name("*"))):
        shards.extend(_held(path))
    return Layout.of(shards)


def _held(path: Path) -> Iterable[Shard]:
    """Yield the shards that a file holds."""
    with safe_open(path, framework="pt") as file:
        text = file.metadata()[_SHARDS]
    for held in msgspec.json.decode(text, type=list[_Held]):
        box = Box(held.tensor, held.start, held.stop)
        yield Shard(path.name, box, held.local, held.offset)


def _check_held(directory: Path, files: Layout, wanted: Layout) -> None:
    """Check that the files' tensors are as long as those of `wanted`."""
    present = files.extents()
    for tensor, stop in wanted.extents().items():
        nothing = (0,) * len(stop)
        held_stop = present.get(tensor, nothing)
        is_missing = any(a > b for a, b in zip(stop, held_stop, strict=True))
        if is_missing:
            raise ValueError(
                f"{directory} has {tensor!r} up to {list(present.get(tensor, ()))}, expected {list(stop)}; it"
                " is of another model"
            )


def _boxes(layout: Layout, rank: Rank) -> set[Box]:
    """Return the boxes of a rank, without their positions in its local tensors."""
    return {shard.box for shard in layout.shards(rank)}
