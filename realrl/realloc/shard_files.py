"""Files that each hold one rank's boxes, and say which: written without a message, read into any layout."""

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
"""Where a file's metadata says which boxes it holds."""


class _Held(msgspec.Struct, array_like=True):
    """A shard as it stands there."""

    tensor: str
    start: Shape
    stop: Shape
    local: str
    offset: Shape


def write(directory: Path, layout: Layout, rank: Rank, tensors: Mapping[str, Tensor]) -> Path:
    """Write `rank`'s local tensors of `layout`, which lie in host memory; returns the file."""
    path = directory / _name(rank)
    held = [_Held(s.box.tensor, s.box.start, s.box.stop, s.local, s.offset) for s in layout.shards(rank)]
    metadata = {_SHARDS: msgspec.json.encode(held).decode()}
    write_aside(path, lambda aside: save_file(dict(tensors), aside, metadata=metadata))
    return path


def read(directory: Path, layout: Layout, rank: Rank, target: Mapping[str, Tensor]) -> None:
    """Fill `rank`'s local tensors of `layout` from the files that lie in `directory`.

    What the rank itself wrote it reads where that is all that it wants, so that even copies which should be
    the same come back each as it was.

    Raises:
        ValueError: a tensor is missing, or ends before what is wanted of it.
    """
    wanted, own = layout.only(rank), directory / _name(rank)
    files = Layout.of(_held(own) if own.is_file() else ())
    if _boxes(files, own.name) != _boxes(wanted, rank):
        files = Layout.of(shard for path in sorted(directory.glob(_name("*"))) for shard in _held(path))
        _check_held(directory, files, wanted)
    read_boxes(directory, files, wanted, rank, target)


def _name(rank: Rank) -> str:
    return f"rank-{rank}.safetensors"


def _held(path: Path) -> Iterable[Shard]:
    with safe_open(path, framework="pt") as file:
        text = file.metadata()[_SHARDS]
    for held in msgspec.json.decode(text, type=list[_Held]):
        yield Shard(path.name, Box(held.tensor, held.start, held.stop), held.local, held.offset)


def _check_held(directory: Path, files: Layout, wanted: Layout) -> None:
    present = files.extents()
    for tensor, stop in wanted.extents().items():
        if any(a > b for a, b in zip(stop, present.get(tensor, (0,) * len(stop)), strict=True)):
            raise ValueError(
                f"{directory} has {tensor!r} up to {list(present.get(tensor, ()))}, expected {list(stop)}; it"
                " is of another model"
            )


def _boxes(layout: Layout, rank: Rank) -> set[Box]:
    return {shard.box for shard in layout.shards(rank)}
