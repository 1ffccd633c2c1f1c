"""Hugging Face checkpoints as layouts whose ranks are files."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from realrl.base.files import write_aside
from realrl.layouts.boxes import split
from realrl.layouts.layout import Layout, Part, Pattern, Rank, Shape
from realrl.layouts.plan import Region, Stream, plan
from realrl.layouts.topology import ONE_NODE, Topology
from realrl.realloc.stream_endpoint import view_of
from realrl.realloc.transfer import USUAL, TransferSettings, execute

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_ELEMENTS_AT_ONCE = 1 << 25
"""Bounds the memory that reading takes beyond the target."""
_FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights, as safetensors calls them."""
_SLACK = 1.05
"""How much more than an even share a writer takes on to spare a transfer."""


class _Index(msgspec.Struct):
    weight_map: dict[str, str]
    """Tensor to file."""


def file_layout(directory: Path | str, base: str = "") -> Layout:
    """Which file of a checkpoint holds which tensor, from the files' headers alone.

    A file saved from a bare model, without its heads, lacks the `base` that its tensors' names begin with.

    Source: huggingface.co/docs/safetensors, "Format"; transformers' `model.safetensors.index.json`.
    Raises:
        ValueError: the directory is no checkpoint, or a file is missing or broken.
    """
    directory = Path(directory)
    found: list[tuple[str, str, Shape]] = []
    for name, wanted in _files(directory).items():
        shapes = _shapes(directory / name)
        for tensor in shapes if wanted is None else wanted:
            if tensor not in shapes:
                raise ValueError(
                    f"{directory / INDEX_FILE}: {name} lacks {tensor!r}; save the checkpoint anew"
                )
            found.append((name, tensor, shapes[tensor]))
    is_bare = not any(tensor.startswith(base) for _, tensor, _ in found)
    return Layout(tuple(_whole(f, base * is_bare + t, shape, local=t) for f, t, shape in found))


def weight_files(directory: Path | str) -> list[str]:
    """The names of a checkpoint's files that hold weights.

    Raises:
        ValueError: the directory is no checkpoint.
    """
    return list(_files(Path(directory)))


def load(
    directory: Path | str, layout: Layout, rank: Rank, target: Mapping[str, Tensor], *, base: str = ""
) -> None:
    """Fill `rank`'s local tensors from a checkpoint, reading only what it needs and casting to their dtypes.

    Raises:
        ValueError: a tensor is missing from the checkpoint, or has another shape.
    """
    directory, files = Path(directory), file_layout(directory, base)
    check_tensors(directory, files, layout)
    read_boxes(directory, files, layout, rank, target)


@torch.no_grad()
def read_boxes(
    directory: Path, files: Layout, layout: Layout, rank: Rank, target: Mapping[str, Tensor]
) -> None:
    """Fill `rank`'s local tensors of `layout` from safetensors files, the ranks of the layout `files`."""
    for stream in plan(files, layout.only(rank)).streams:
        with safe_open(directory / stream.route.root, framework="pt") as file:
            _read_stream(file, stream, rank, target)


def check_tensors(directory: Path, files: Layout, layout: Layout) -> None:
    """Raise ValueError unless the checkpoint's `files` hold each tensor of `layout`, floats of its shape."""
    present = files.extents()
    for tensor, expected in layout.extents().items():
        if tensor not in present:
            raise ValueError(f"{directory} has no tensor {tensor!r}, which the model needs; give another one")
        if (shape := present[tensor]) != expected:
            raise ValueError(
                f"{directory}: expected {tensor!r} of shape {list(expected)}, got {list(shape)};"
                " give a checkpoint that fits its config.json"
            )
    _check_types(directory, files, layout.extents())


def are_equal(directory: Path, files: Layout, one: str, other: str) -> bool:
    """Whether two tensors of a checkpoint have the same elements."""
    places = {pattern.tensor: pattern.parts[0] for pattern in files.patterns}
    extents = files.extents()
    if extents[one] != extents[other]:
        return False
    with ExitStack() as stack:
        slices = [
            stack.enter_context(safe_open(directory / part.ranks[0], framework="pt")).get_slice(part.local)
            for part in (places[one], places[other])
        ]
        for offset, shape in split(extents[one], _ELEMENTS_AT_ONCE):
            block = tuple(slice(a, a + n) for a, n in zip(offset, shape, strict=True))
            if not torch.equal(*(part[block] for part in slices)):
                return False
    return True


def save(
    directory: Path | str,
    layout: Layout,
    source: Mapping[str, Tensor],
    *,
    rank: int,
    ranks: Sequence[int],
    dtype: torch.dtype,
    topology: Topology = ONE_NODE,
    settings: TransferSettings = USUAL,
) -> None:
    """Write a checkpoint of the tensors, all of `dtype`, that `layout` spreads over `ranks`.

    Each of `ranks` gathers some whole tensors and writes them as one file; the first also writes the
    index. The checkpoint is whole once every rank has returned.

    Collective: over `ranks`, which are those of `layout`.
    """
    saved = save_layout(layout, ranks)
    device = next((tensor.device for tensor in source.values()), None)
    mine = saved.shards(rank)
    whole = {s.local: torch.empty(s.box.shape, dtype=dtype, device=device) for s in mine}
    execute(plan(layout, saved, topology), source, whole, rank=rank, settings=settings)
    if whole:
        write_shard(directory, len(saved.ranks), saved.ranks.index(rank), whole)
    if rank == saved.ranks[0]:
        write_index(directory, saved, dtype.itemsize)


def save_layout(model_layout: Layout, ranks: Sequence[Rank]) -> Layout:
    """Give each whole tensor of the model to one writer, evenly, and rather to one that holds much of it."""
    extents = model_layout.extents()
    held = {tensor: _held_elements(p) for p in model_layout.patterns for tensor in p.tensors}
    even = sum(map(math.prod, extents.values())) / len(ranks)
    load = dict.fromkeys(ranks, 0)
    writer = {}
    for tensor, shape in sorted(extents.items(), key=lambda item: -math.prod(item[1])):
        numel, own = math.prod(shape), held[tensor]
        open_ranks = [r for r in ranks if load[r] + numel <= _SLACK * even]
        if open_ranks:
            writer[tensor] = max(open_ranks, key=lambda r, own=own: (own.get(r, 0), -load[r]))
        else:
            writer[tensor] = min(ranks, key=lambda r, own=own: (load[r], -own.get(r, 0)))
        load[writer[tensor]] += numel
    return Layout(tuple(_whole(r, t, extents[t]) for r in ranks for t in extents if writer[t] == r))


def write_shard(directory: Path | str, num_files: int, index: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the `index`-th file, counted from 0, of a checkpoint; it appears whole or not at all."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    path = Path(directory) / shard_name(num_files, index)
    write_aside(path, lambda aside: save_file(tensors, aside, metadata={"format": "pt"}))


def write_index(directory: Path | str, saved: Layout, itemsize: int) -> None:
    """Write the index of a checkpoint of several files; a single file needs none."""
    if len(saved.ranks) == 1:
        return
    names = {rank: shard_name(len(saved.ranks), i) for i, rank in enumerate(saved.ranks)}
    index = {
        "metadata": {"total_size": itemsize * sum(map(math.prod, saved.extents().values()))},
        "weight_map": {pattern.tensor: names[pattern.parts[0].ranks[0]] for pattern in saved.patterns},
    }
    text = json.dumps(index, indent=2) + "\n"
    write_aside(Path(directory) / INDEX_FILE, lambda aside: aside.write_text(text))


def shard_name(num_files: int, index: int) -> str:
    """The name of a checkpoint's `index`-th file, counted from 0."""
    return SINGLE_FILE if num_files == 1 else f"model-{index + 1:05d}-of-{num_files:05d}.safetensors"


def named_files(directory: Path) -> list[str]:
    """The files that a checkpoint's index names, whether they are there or not.

    Raises:
        ValueError: it is no index.
    """
    return list(_indexed(directory / INDEX_FILE))


def _files(directory: Path) -> dict[str, list[str] | None]:
    """The checkpoint's files, each with the tensors that are to be taken from it; None means all."""
    if (directory / SINGLE_FILE).is_file():
        return {SINGLE_FILE: None}
    index = directory / INDEX_FILE
    if not index.is_file():
        raise ValueError(f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}; {_what_to_do(directory)}")
    return dict(_indexed(index))


def _indexed(index: Path) -> dict[str, list[str]]:
    """Each file that an index names, and its tensors."""
    try:
        weight_map = msgspec.json.decode(index.read_text(encoding="utf-8"), type=_Index).weight_map
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{index} is no checkpoint index ({error}); save the checkpoint anew") from error
    files: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        if Path(name).name != name:
            raise ValueError(f"{index} names {name}, which is no file beside it; save the checkpoint anew")
        files.setdefault(name, []).append(tensor)
    return files


def _what_to_do(directory: Path) -> str:
    """About a directory without safetensors files."""
    if pickled := sorted(path.name for path in directory.glob("*.bin")):
        return (
            f"{pickled[0]} is a pickle, which can run code when it is read, and so is not read; if you trust"
            " it, convert it by transformers, AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )
    return "name a Hugging Face directory"


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if not path.is_file():
        raise ValueError(f"{path} is missing, but the index names it; fetch the checkpoint anew")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); fetch it anew") from error


def _check_types(directory: Path, files: Layout, wanted: Collection[str]) -> None:
    """Integers would be taken for weights, and the scales of quantised ones would be left out."""
    by_file: dict[Rank, list[Pattern]] = {}
    for pattern in files.patterns:
        if pattern.tensor in wanted:
            by_file.setdefault(pattern.parts[0].ranks[0], []).append(pattern)
    for name, patterns in by_file.items():
        with safe_open(directory / name, framework="pt") as file:
            for pattern in patterns:
                dtype = file.get_slice(pattern.parts[0].local).get_dtype()
                if dtype not in _FLOATS:
                    raise ValueError(
                        f"{directory}: expected {pattern.tensor!r} of floats ({', '.join(_FLOATS)}), got"
                        f" {dtype}: quantised weights are not supported; give the model that was quantised"
                    )


def _read_stream(file, stream: Stream, rank: Rank, target: Mapping[str, Tensor]) -> None:
    """Fill this rank's copies of what one file holds, a block at a time."""
    for piece in stream.pieces:
        for held, copies in zip(piece.sources(stream.route.root), piece.targets(rank), strict=True):
            for offset, shape in split(held.shape, _ELEMENTS_AT_ONCE):
                block = _read(file, held, offset, shape)
                for wanted in copies:
                    view_of(target[wanted.local], wanted.offset, offset, shape).copy_(block)


def _read(file, held: Region, offset: Shape, shape: Shape) -> Tensor:
    if not shape:
        return file.get_tensor(held.local)
    begin = (a + b for a, b in zip(held.offset, offset, strict=True))
    return file.get_slice(held.local)[tuple(slice(a, a + n) for a, n in zip(begin, shape, strict=True))]


def _whole(rank: Rank, tensor: str, shape: Shape, local: str | None = None) -> Pattern:
    zeros = (0,) * len(shape)
    return Pattern(tensor, (Part((rank,), zeros, shape, local or tensor, zeros),))


def _held_elements(pattern: Pattern) -> dict[Rank, int]:
    held: dict[Rank, int] = {}
    for rank, numel in ((rank, part.numel) for part in pattern.parts for rank in part.ranks):
        held[rank] = held.get(rank, 0) + numel
    return held
