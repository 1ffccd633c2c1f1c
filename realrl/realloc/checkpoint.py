"""Hugging Face checkpoints as layouts whose ranks are files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from realrl.base.files import sync
from realrl.layouts.layout import Box, Layout, Rank, Shard
from realrl.layouts.plan import Copy, plan
from realrl.realloc.execute import execute, target_region

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_ELEMENTS_AT_ONCE = 1 << 25
"""Bounds the memory that reading takes beyond the target."""
_SLACK = 1.05
"""How much more than an even share a writer takes on to spare a transfer."""


class _Index(msgspec.Struct):
    weight_map: dict[str, str]
    """Tensor to file."""


def file_layout(directory: Path | str) -> Layout:
    """Which file of a checkpoint holds which tensor, from the files' headers alone.

    Source: huggingface.co/docs/safetensors, "Format"; transformers' `model.safetensors.index.json`.
    Raises:
        ValueError: the directory is no checkpoint, or a file is missing or broken.
    """
    directory = Path(directory)
    shards = []
    for name, wanted in _files(directory).items():
        shapes = _shapes(directory / name)
        for tensor in shapes if wanted is None else wanted:
            if tensor not in shapes:
                raise ValueError(
                    f"{directory / INDEX_FILE}: {name} lacks {tensor!r}; save the checkpoint anew"
                )
            shards.append(_whole(name, tensor, shapes[tensor]))
    return Layout(tuple(shards))


@torch.no_grad()
def load(directory: Path | str, layout: Layout, rank: Rank, target: Mapping[str, Tensor]) -> None:
    """Fill `rank`'s local tensors from a checkpoint, reading only what it needs and casting to their dtypes.

    Raises:
        ValueError: a tensor is missing from the checkpoint, or has another shape.
    """
    directory, files = Path(directory), file_layout(directory)
    check_tensors(directory, files, layout)
    own = Layout(layout.by_rank.get(rank, ()))
    for name, copies in plan(files, own).by_source.items():
        with safe_open(directory / name, framework="pt") as file:
            for copy in copies:
                for piece in copy.pieces(_ELEMENTS_AT_ONCE):
                    target_region(piece, target).copy_(_read(file, piece))


def check_tensors(directory: Path, files: Layout, layout: Layout) -> None:
    """Raise ValueError unless the checkpoint's `files` hold every tensor of `layout` in its shape."""
    for tensor, box in _extents(layout).items():
        if tensor not in files.by_tensor:
            raise ValueError(f"{directory} has no tensor {tensor!r}, which the model needs; give another one")
        shape = files.by_tensor[tensor][0].box.shape
        if shape != box.stop:
            raise ValueError(
                f"{directory}: expected {tensor!r} of shape {list(box.stop)}, got {list(shape)};"
                " give a checkpoint that fits its config.json"
            )


def save(
    directory: Path | str,
    layout: Layout,
    source: Mapping[str, Tensor],
    *,
    rank: int,
    ranks: Sequence[int],
    dtype: torch.dtype,
    staging_bytes: int = 256 << 20,
) -> None:
    """Write a checkpoint of the tensors, all of `dtype`, that `layout` spreads over `ranks`.

    Each of `ranks` gathers some whole tensors and writes them as one file; the first also writes the
    index. The checkpoint is whole once every rank has returned.

    Collective: over `ranks`, which are those of `layout`.
    """
    saved = save_layout(layout, ranks)
    device = next((tensor.device for tensor in source.values()), None)
    mine = saved.by_rank.get(rank, ())
    whole = {s.local: torch.empty(s.box.shape, dtype=dtype, device=device) for s in mine}
    execute(plan(layout, saved), source, whole, rank=rank, staging_bytes=staging_bytes)
    if whole:
        write_shard(directory, len(saved.ranks), saved.ranks.index(rank), whole)
    if rank == saved.ranks[0]:
        write_index(directory, saved, dtype.itemsize)


def save_layout(model_layout: Layout, ranks: Sequence[Rank]) -> Layout:
    """Give each whole tensor of the model to one writer, evenly, and rather to one that holds much of it."""
    extents = _extents(model_layout)
    even = sum(box.numel for box in extents.values()) / len(ranks)
    load = dict.fromkeys(ranks, 0)
    writer = {}
    for tensor, box in sorted(extents.items(), key=lambda item: -item[1].numel):
        held = _held_elements(model_layout.by_tensor[tensor])
        open_ranks = [r for r in ranks if load[r] + box.numel <= _SLACK * even]
        if open_ranks:
            writer[tensor] = max(open_ranks, key=lambda r, held=held: (held.get(r, 0), -load[r]))
        else:
            writer[tensor] = min(ranks, key=lambda r, held=held: (load[r], -held.get(r, 0)))
        load[writer[tensor]] += box.numel
    return Layout(tuple(_whole(r, t, extents[t].stop) for r in ranks for t in extents if writer[t] == r))


def write_shard(directory: Path | str, num_files: int, index: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the `index`-th file, counted from 0, of a checkpoint; it appears whole or not at all."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    path = Path(directory) / shard_name(num_files, index)
    _write_aside(path, lambda aside: save_file(tensors, aside, metadata={"format": "pt"}))


def write_index(directory: Path | str, saved: Layout, itemsize: int) -> None:
    """Write the index of a checkpoint of several files; a single file needs none."""
    if len(saved.ranks) == 1:
        return
    names = {rank: shard_name(len(saved.ranks), i) for i, rank in enumerate(saved.ranks)}
    index = {
        "metadata": {"total_size": itemsize * sum(shard.box.numel for shard in saved.shards)},
        "weight_map": {shard.box.tensor: names[shard.rank] for shard in saved.shards},
    }
    text = json.dumps(index, indent=2) + "\n"
    _write_aside(Path(directory) / INDEX_FILE, lambda aside: aside.write_text(text))


def shard_name(num_files: int, index: int) -> str:
    """The name of a checkpoint's `index`-th file, counted from 0."""
    return SINGLE_FILE if num_files == 1 else f"model-{index + 1:05d}-of-{num_files:05d}.safetensors"


def _files(directory: Path) -> dict[str, list[str] | None]:
    """The checkpoint's files, each with the tensors that are to be taken from it; None means all."""
    if (directory / SINGLE_FILE).is_file():
        return {SINGLE_FILE: None}
    index = directory / INDEX_FILE
    if not index.is_file():
        raise ValueError(
            f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}; name a Hugging Face directory"
        )
    try:
        weight_map = msgspec.json.decode(index.read_text(encoding="utf-8"), type=_Index).weight_map
    except ValueError as error:
        raise ValueError(f"{index} is no checkpoint index ({error}); save the checkpoint anew") from error
    files: dict[str, list[str] | None] = {}
    for tensor, name in weight_map.items():
        files.setdefault(name, []).append(tensor)
    return files


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing, but the index names it; fetch the checkpoint anew")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); fetch it anew") from error


def _read(file, piece: Copy) -> Tensor:
    if not piece.shape:
        return file.get_tensor(piece.source_local)
    ranges = tuple(slice(a, a + n) for a, n in zip(piece.source_offset, piece.shape, strict=True))
    return file.get_slice(piece.source_local)[ranges]


def _whole(rank: Rank, tensor: str, shape: tuple[int, ...]) -> Shard:
    zeros = (0,) * len(shape)
    return Shard(rank, Box(tensor, zeros, shape), tensor, zeros)


def _extents(layout: Layout) -> dict[str, Box]:
    """Each tensor as one box, as far as the layout knows it."""
    extents = {}
    for tensor, shards in layout.by_tensor.items():
        stop = tuple(map(max, zip(*(shard.box.stop for shard in shards), strict=True)))
        extents[tensor] = Box(tensor, (0,) * len(stop), stop)
    return extents


def _held_elements(shards: Sequence[Shard]) -> dict[Rank, int]:
    held: dict[Rank, int] = {}
    for shard in shards:
        held[shard.rank] = held.get(shard.rank, 0) + shard.box.numel
    return held


def _write_aside(path: Path, write: Callable[[Path], object]) -> None:
    aside = path.with_name(f".{path.name}.partial")
    write(aside)
    sync(aside)
    os.replace(aside, path)
    sync(path.parent)
