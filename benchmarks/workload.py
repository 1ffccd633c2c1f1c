"""The model that is moved, the pairs of layouts, and what every element must be."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import torch
from torch import Tensor

from realrl.api.allocation import parse_layout
from realrl.api.mesh import DeviceMesh, Placement
from realrl.layouts.layout import Box, Layout
from realrl.models.config import DecoderConfig
from realrl.models.layout import check_fits, decoder_layout, local_tensors
from realrl.models.rope import Rope
from realrl.parallel.flat import FlatTensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_INTEGERS = {4: torch.int32, 2: torch.int16}
_SMALL_BYTES = 256 << 20
_SIDE = re.compile(r"(?P<layout>(?:[a-z][0-9]{1,4})+)(?:@(?P<first>[0-9]{1,4}))?")


def decoder_of_size(num_bytes: int, dtype: torch.dtype, hidden: int | None = None) -> DecoderConfig:
    """A Llama-like decoder with as many layers as bring it nearest to `num_bytes`.

    Left out, its hidden size is one that gives some layers.

    Raises:
        ValueError: a hidden size that 256 does not divide.
    """
    hidden = hidden or (256 if num_bytes < _SMALL_BYTES else 1024)
    if hidden % 256:
        raise ValueError(f"--hidden: expected a multiple of 256, got {hidden}")
    heads, vocab = max(8, hidden // 64), 8 * hidden
    inner = hidden * 11 // 4
    layer = hidden * hidden * 3 + 3 * hidden * inner + 2 * hidden
    num_layers = round((num_bytes / dtype.itemsize - 2 * vocab * hidden - hidden) / layer)
    return DecoderConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=max(1, num_layers),
        num_heads=heads,
        num_kv_heads=heads // 2,
        head_dim=hidden // heads,
        max_position=4096,
        rope=Rope(theta=1e4),
        norm_eps=1e-5,
        tied=False,
        eos_token_ids=(),
    )


@dataclass(frozen=True)
class Pair:
    """Two placements of one decoder."""

    name: str
    decoder: DecoderConfig
    source: Placement
    target: Placement

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted({*self.source.ranks, *self.target.ranks}))

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        return decoder_layout(self.decoder, self.source, "lm"), decoder_layout(
            self.decoder, self.target, "lm"
        )


def parse_pairs(text: str, decoder: DecoderConfig, num_workers: int) -> list[Pair]:
    """Pairs as `t4:d4,t2@0:d2@2`.

    Raises:
        ValueError: text that cannot be read, a layout that the decoder cannot be cut into, or too many ranks.
    """
    return [_parse_pair(name.strip(), decoder, num_workers) for name in text.split(",")]


def _parse_pair(name: str, decoder: DecoderConfig, num_workers: int) -> Pair:
    sides = name.split(":")
    if len(sides) != 2:
        raise ValueError(f"--pairs: cannot read {name!r}; expected two layouts, as t4:d4 or t2@0:d2@2")
    return Pair(name, decoder, *(_parse_side(side, name, decoder, num_workers) for side in sides))


def _parse_side(text: str, name: str, decoder: DecoderConfig, num_workers: int) -> Placement:
    match = _SIDE.fullmatch(text)
    if match is None:
        raise ValueError(f"--pairs: cannot read {text!r} in {name!r}; expected a layout, as p2d2t2 or t2@2")
    try:
        layout = parse_layout(match["layout"])
    except ValueError as error:
        raise ValueError(f"--pairs: {str(error).removeprefix('allocation: ')}") from None
    check_fits(decoder, layout, f"--pairs {name}")
    first = int(match["first"] or 0)
    if first + layout.size > num_workers:
        raise ValueError(
            f"--pairs: {text!r} in {name!r} needs {first + layout.size} workers, there are {num_workers};"
            " give more with --workers"
        )
    return Placement(DeviceMesh(tuple(range(first, first + layout.size))), layout)


class Locals:
    """One rank's tensors under a layout, found by boxes of the global ones."""

    def __init__(self, layout: Layout, rank: int, flat: FlatTensors) -> None:
        self.flat = flat
        self.boxes: list[Box] = []
        self._shards = defaultdict(list)
        for shard in layout.shards(rank):
            self.boxes.append(shard.box)
            self._shards[shard.box.tensor].append(shard)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.flat.views

    def parts(self, box: Box) -> Iterator[tuple[Box, Tensor]]:
        """Those ranges of `box` that are here, each with the view of it."""
        for shard in self._shards.get(box.tensor, ()):
            start, stop = (
                tuple(map(max, box.start, shard.box.start)),
                tuple(map(min, box.stop, shard.box.stop)),
            )
            if all(a < b for a, b in zip(start, stop)):
                place = zip(start, stop, shard.box.start, shard.offset)
                index = tuple(slice(a - low + o, b - low + o) for a, b, low, o in place)
                yield Box(box.tensor, start, stop), self.tensors[shard.local][index]

    def read(self, box: Box, block: Tensor) -> None:
        """Copy what is here of `box` to `block`, which has its shape."""
        for common, view in self.parts(box):
            block[_within(common, box)].copy_(view)

    def write(self, box: Box, block: Tensor) -> None:
        """The way back."""
        for common, view in self.parts(box):
            view.copy_(block[_within(common, box)])


def _within(inner: Box, outer: Box) -> tuple[slice, ...]:
    return tuple(slice(a - low, b - low) for a, b, low in zip(inner.start, inner.stop, outer.start))


def make_locals(placement: Placement, decoder: DecoderConfig, rank: int, dtype, device) -> Locals:
    """A rank's zeroed tensors; none if it is not in the placement."""
    shapes = {}
    if rank in placement.ranks:
        coordinate = placement.coordinate(rank)
        shapes = {t.name: t.shape for t in local_tensors(decoder, placement.layout, coordinate, "lm")}
    return Locals(decoder_layout(decoder, placement, "lm"), rank, FlatTensors(shapes, dtype, device))


def fill(held: Locals) -> None:
    """Give every element the bits that its place in the global tensor says."""
    for box in held.boxes:
        for common, view in held.parts(box):
            bits = _bits(view)
            bits.copy_(_expected(common, bits.dtype, view.device))


def differing(held: Locals) -> list[str]:
    """The tensors with an element that is not as `fill` makes it."""
    found = []
    for box in held.boxes:
        for common, view in held.parts(box):
            bits = _bits(view)
            if not torch.equal(bits, _expected(common, bits.dtype, view.device)):
                found.append(box.tensor)
    return found


def _bits(view: Tensor) -> Tensor:
    return view.view(_INTEGERS[view.dtype.itemsize])


def _expected(box: Box, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The sum of a hash of each index and one of the tensor's name; integers wrap around."""
    bits = torch.tensor(crc32(box.tensor.encode()) % (1 << 31), device=device).to(dtype)
    for dim, (start, stop) in enumerate(zip(box.start, box.stop)):
        mixed = torch.arange(start + 1, stop + 1, dtype=torch.int32, device=device) * (1640531527 + 2 * dim)
        along = (mixed ^ (mixed >> 15)).to(dtype)
        bits = bits + along.view([-1 if d == dim else 1 for d in range(len(box.start))])
    return bits
