"""Hugging Face checkpoints, as layouts whose ranks are files.

load   headers ──▶ file layout ──▶ plan(files, model) ──▶ read this rank's boxes of each file
save   save layout: one writer per tensor ──▶ transfer whole tensors ──▶ one file per writer ──▶ index
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from realrl.layouts.pieces import Region
from realrl.layouts.plan import Stream, plan
from realrl.layouts.topology import ONE_NODE, Topology
from realrl.realloc.transfer import USUAL, Transfer, TransferSettings
from realrl.realloc.views import view_of

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_ELEMENTS_AT_ONCE = 1 << 25
"""Elements that are read at a time; bounds the memory that reading takes beyond the target."""
_FLOATS = ("F64", "F32", "F16", "BF16")
"""Accepted types of weights, by their names in safetensors."""
_SLACK = 1.05
"""Load at which a writer accepts no more of its own elements, relative to an even share."""


class _Index(msgspec.Struct):
    """The index of a checkpoint of several files."""

    weight_map: dict[str, str]
    """The file of each tensor."""


def file_layout(directory: Path | str, base: str = "") -> Layout:
    """Return the layout of a checkpoint's tensors in its files, from the files' headers alone.

    The tensors' names begin with `base`, except in a checkpoint of a bare model without heads. There the
    layout adds `base`.

    Source: huggingface.co/docs/safetensors, "Format"; transformers' `model.safetensors.index.json`.
    Raises:
        ValueError: the directory is no checkpoint, or a file is missing or broken.
    """
    directory = Path(directory)
    found: list[tuple[str, str, Shape]] = []

    for name, wanted in _files(directory).items():
        shapes = _shapes(directory / name)
        tensors = shapes if wanted is None else wanted
        for tensor in tensors:
            if tensor not in shapes:
                raise ValueError(
                    f"{directory / INDEX_FILE}: {name} lacks {tensor!r}; save the checkpoint anew"
                )

            found.append((name, tensor, shapes[tensor]))

    is_bare = not any(tensor.startswith(base) for _, tensor, _ in found)
    prefix = base if is_bare else ""
    patterns = [_whole(name, prefix + tensor, shape, local=tensor) for name, tensor, shape in found]
    return Layout(tuple(patterns))


def weight_files(directory: Path | str) -> list[str]:
    """Return the names of a checkpoint's files of weights.

    Raises:
        ValueError: the directory is no checkpoint.
    """
    files = _files(Path(directory))
    return list(files)


def load(
    directory: Path | str, layout: Layout, rank: Rank, target: Mapping[str, Tensor], *, base: str = ""
) -> None:
    """Fill `rank`'s local tensors from a checkpoint; read only what it needs, and cast it to their dtypes.

    Raises:
        ValueError: a tensor is missing from the checkpoint, or has another shape or no floats.
    """
    directory = Path(directory)
    files = file_layout(directory, base)
    check_tensors(directory, files, layout)
    read_boxes(directory, files, layout, rank, target)


@torch.no_grad()
def read_boxes(
    directory: Path, files: Layout, layout: Layout, rank: Rank, target: Mapping[str, Tensor]
) -> None:
    """Fill `rank`'s local tensors of `layout` from safetensors files, the ranks of the layout `files`."""
    own_plan = plan(files, layout.only(rank))
    for stream in own_plan.streams:
        with safe_open(directory / str(stream.route.root), framework="pt") as file:
            _read_stream(file, stream, rank, target)


def check_tensors(directory: Path, files: Layout, layout: Layout) -> None:
    """Check that the checkpoint's `files` hold every tensor of `layout`, in its shape and as floats.

    Raises:
        ValueError: a tensor is missing, has another shape or no floats.
    """
    present = files.extents()
    wanted = layout.extents()

    for tensor, expected in wanted.items():
        if tensor not in present:
            raise ValueError(f"{directory} has no tensor {tensor!r}, which the model needs; give another one")
        shape = present[tensor]
        if shape != expected:
            raise ValueError(
                f"{directory}: expected {tensor!r} of shape {list(expected)}, got {list(shape)};"
                " give a checkpoint that fits its config.json"
            )

    _check_types(directory, files, wanted)


def are_equal(directory: Path, files: Layout, one: str, other: str) -> bool:
    """Return whether two tensors of a checkpoint have the same elements."""
    parts = {pattern.tensor: pattern.parts[0] for pattern in files.patterns}
    extents = files.extents()
    if extents[one] != extents[other]:
        return False
    with ExitStack() as stack:
        first = _open_slice(stack, directory, parts[one])
        second = _open_slice(stack, directory, parts[other])
        for offset, shape in split(extents[one], _ELEMENTS_AT_ONCE):
            block = _slices(offset, shape)
            if not torch.equal(first[block], second[block]):
                return False

    return True


def _open_slice(stack: ExitStack, directory: Path, part: Part):
    """Open a tensor's file until `stack` closes, and return the tensor, which is read block by block."""
    opened = safe_open(directory / str(part.ranks[0]), framework="pt")
    file = stack.enter_context(opened)
    return file.get_slice(part.local)


def _slices(begin: Iterable[int], shape: Shape) -> tuple[slice, ...]:
    """Return the index of the block of `shape` at `begin`."""
    return tuple(slice(start, start + size) for start, size in zip(begin, shape, strict=True))


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
    """Write a checkpoint of the tensors, all of `dtype`, that `layout` shards over `ranks`.

    Each of `ranks` gathers some whole tensors and writes them as one file; the first also writes the
    index. The checkpoint is complete once every rank has returned.

    Collective: over `ranks`, which are those of `layout`.
    """
    saved = save_layout(layout, ranks)
    device = next((tensor.device for tensor in source.values()), None)
    whole: dict[str, Tensor] = {}
    for shard in saved.shards(rank):
        whole[shard.local] = torch.empty(shard.box.shape, dtype=dtype, device=device)
    transfer_plan = plan(layout, saved, topology)
    transfer = Transfer(transfer_plan, rank=rank, settings=settings)
    transfer.run(source, whole)
    if whole:
        num_files = len(saved.ranks)
        index = saved.ranks.index(rank)
        write_shard(directory, num_files, index, whole)

    if rank == saved.ranks[0]:
        write_index(directory, saved, dtype.itemsize)


def save_layout(model_layout: Layout, ranks: Sequence[Rank]) -> Layout:
    """Assign each whole tensor of the model to one writer.

    The load is even. Among ranks with capacity, the one that holds most of a tensor writes it.
    """
    extents = model_layout.extents()
    sizes = {tensor: math.prod(shape) for tensor, shape in extents.items()}
    held: dict[str, dict[Rank, int]] = {}

    for pattern in model_layout.patterns:
        own = _held_elements(pattern)
        held.update(dict.fromkeys(pattern.tensors, own))

    limit = _SLACK * (sum(sizes.values()) / len(ranks))
    load = dict.fromkeys(ranks, 0)
    tensors_of: dict[Rank, list[str]] = {rank: [] for rank in ranks}

    # The largest tensors come first: the smaller ones then even out the load.
    for tensor in sorted(extents, key=lambda name: -sizes[name]):
        writer = _choose_writer(
            load,
            held[tensor],
            sizes[tensor],
            limit,
        )
        load[writer] += sizes[tensor]
        tensors_of[writer].append(tensor)

    patterns: list[Pattern] = []
    positions = {tensor: position for position, tensor in enumerate(extents)}
    for rank, tensors in tensors_of.items():
        # A file lists its tensors in the order of the model.
        for tensor in sorted(tensors, key=positions.__getitem__):
            patterns.append(_whole(rank, tensor, extents[tensor]))

    return Layout(tuple(patterns))


def _choose_writer(load: Mapping[Rank, int], held: Mapping[Rank, int], numel: int, limit: float) -> Rank:
    """Return the rank to write a tensor: the one that holds most of it, among those below the limit.

    If the tensor would lift every rank above the limit, the rank with the least load writes it.
    """
    best: Rank | None = None
    for rank in load:
        if load[rank] + numel > limit:
            continue
        if best is None or _preference(rank, load, held) > _preference(best, load, held):
            best = rank

    if best is not None:
        return best
    return min(load, key=lambda rank: (load[rank], -held.get(rank, 0)))


def _preference(rank: Rank, load: Mapping[Rank, int], held: Mapping[Rank, int]) -> tuple[int, int]:
    """Return what orders the writers of a tensor: first how much each holds of it, then its spare load."""
    return held.get(rank, 0), -load[rank]


def write_shard(directory: Path | str, num_files: int, index: int, tensors: Mapping[str, Tensor]) -> None:
    """Write the `index`-th file of a checkpoint, counted from 0; it appears complete or not at all."""
    host_tensors: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        host_tensors[name] = tensor.detach().contiguous().cpu()
    path = Path(directory) / shard_name(num_files, index)
    write_aside(path, lambda aside: save_file(host_tensors, aside, metadata={"format": "pt"}))


def write_index(directory: Path | str, saved: Layout, itemsize: int) -> None:
    """Write the index of a checkpoint of several files; a single file needs none."""
    num_files = len(saved.ranks)
    if num_files == 1:
        return
    names = {rank: shard_name(num_files, i) for i, rank in enumerate(saved.ranks)}
    weight_map: dict[str, str] = {}
    for pattern in saved.patterns:
        writer = pattern.parts[0].ranks[0]
        weight_map[pattern.tensor] = names[writer]

    shapes = saved.extents().values()
    num_elements = sum(map(math.prod, shapes))
    metadata = {"total_size": itemsize * num_elements}
    index = {"metadata": metadata, "weight_map": weight_map}
    text = json.dumps(index, indent=2) + "\n"
    write_aside(Path(directory) / INDEX_FILE, lambda aside: aside.write_text(text))


def shard_name(num_files: int, index: int) -> str:
    """Return the name of a checkpoint's `index`-th file, counted from 0."""
    if num_files == 1:
        return SINGLE_FILE
    return f"model-{index + 1:05d}-of-{num_files:05d}.safetensors"


def named_files(directory: Path) -> list[str]:
    """Return the files that a checkpoint's index names, whether they exist or not.

    Raises:
        ValueError: the index is missing or broken.
    """
    files = _indexed(directory / INDEX_FILE)
    return list(files)


def _files(directory: Path) -> dict[str, list[str] | None]:
    """Return the checkpoint's files, each with the tensors to read from it; None means all."""
    if (directory / SINGLE_FILE).is_file():
        return {SINGLE_FILE: None}
    index = directory / INDEX_FILE
    if not index.is_file():
        raise ValueError(f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}; {_what_to_do(directory)}")
    return dict(_indexed(index))


def _indexed(index: Path) -> dict[str, list[str]]:
    """Return each file that an index names, and its tensors."""
    try:
        text = index.read_text(encoding="utf-8")
        decoded = msgspec.json.decode(text, type=_Index)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{index} is no checkpoint index ({error}); save the checkpoint anew") from error

    files: dict[str, list[str]] = {}
    for tensor, name in decoded.weight_map.items():
        # A path could point anywhere on this machine.
        if Path(name).name != name:
            raise ValueError(f"{index} names {name}, which is no file beside it; save the checkpoint anew")
        files.setdefault(name, []).append(tensor)

    return files


def _what_to_do(directory: Path) -> str:
    """Return the advice on a directory without safetensors files."""
    pickled = sorted(path.name for path in directory.glob("*.bin"))
    if pickled:
        return (
            f"{pickled[0]} is a pickle, which can run code when it is read, and so is not read; if you trust"
            " it, convert it by transformers, AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)"
        )

    return "name a Hugging Face directory"


def _shapes(path: Path) -> dict[str, Shape]:
    """Return the shape of each tensor in a file."""
    if not path.is_file():
        raise ValueError(f"{path} is missing, but the index names it; fetch the checkpoint anew")
    try:
        with safe_open(path, framework="pt") as file:
            shapes: dict[str, Shape] = {}
            for name in file.keys():
                shapes[name] = tuple(file.get_slice(name).get_shape())
            return shapes
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); fetch it anew") from error


def _check_types(directory: Path, files: Layout, wanted: Collection[str]) -> None:
    """Check that tensors are floats.

    Integers would be read as weights, and the scales of quantised weights would be ignored.
    """
    by_file: dict[Rank, list[Pattern]] = {}
    for pattern in files.patterns:
        if pattern.tensor in wanted:
            name = pattern.parts[0].ranks[0]
            by_file.setdefault(name, []).append(pattern)

    for name, patterns in by_file.items():
        with safe_open(directory / str(name), framework="pt") as file:
            for pattern in patterns:
                _check_type(directory, file, pattern)


def _check_type(directory: Path, file, pattern: Pattern) -> None:
    """Check that a tensor of an open file is of floats."""
    local = pattern.parts[0].local
    dtype = file.get_slice(local).get_dtype()
    if dtype in _FLOATS:
        return
    raise ValueError(
        f"{directory}: expected {pattern.tensor!r} of floats ({', '.join(_FLOATS)}), got"
        f" {dtype}: quantised weights are not supported; give the model that was quantised"
    )


def _read_stream(file, stream: Stream, rank: Rank, target: Mapping[str, Tensor]) -> None:
    """Fill this rank's copies of the boxes that one file holds."""
    for piece in stream.pieces:
        sources = piece.sources(stream.route.root)
        targets = piece.targets(rank)
        for held, copies in zip(sources, targets, strict=True):
            _read_region(file, held, copies, target)


def _read_region(file, held: Region, copies: Sequence[Region], target: Mapping[str, Tensor]) -> None:
    """Fill this rank's copies of one region of a file, a block at a time."""
    for offset, shape in split(held.shape, _ELEMENTS_AT_ONCE):
        block = _read(file, held, offset, shape)
        for wanted in copies:
            view = view_of(
                target[wanted.local],
                wanted.offset,
                offset,
                shape,
            )
            view.copy_(block)


def _read(file, held: Region, offset: Shape, shape: Shape) -> Tensor:
    """Read the block of `shape` at `offset` in a region of a file."""
    if not shape:
        # safetensors cannot slice a scalar.
        return file.get_tensor(held.local)

    begin = [a + b for a, b in zip(held.offset, offset, strict=True)]
    block = _slices(begin, shape)
    return file.get_slice(held.local)[block]


def _whole(rank: Rank, tensor: str, shape: Shape, local: str | None = None) -> Pattern:
    """Return the pattern of a tensor that one rank holds whole, as its local tensor `local`."""
    zeros = (0,) * len(shape)
    part = Part(
        (rank,),
        zeros,
        shape,
        local or tensor,
        zeros,
    )
    return Pattern(tensor, (part,))


def _held_elements(pattern: Pattern) -> dict[Rank, int]:
    """Return how many elements of a pattern's tensor each rank holds."""
    held: dict[Rank, int] = {}
    for part in pattern.parts:
        for rank in part.ranks:
            held[rank] = held.get(rank, 0) + part.numel

    return held
