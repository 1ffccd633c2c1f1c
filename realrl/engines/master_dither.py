"""Masters of bfloat16 weights, on which no update is lost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from realrl.base.seeding import derive_seed
from realrl.layouts.boxes import split
from realrl.layouts.layout import Layout, Rank, Shape
from realrl.realloc.views import view_of

_ELEMENTS_AT_ONCE = 1 << 20
_MIX = 0x2545F4914F6CDD1D
"""An odd multiplier that spreads a number's bits; from Vigna 2016, arXiv:1402.6246, of xorshift*."""


@torch.no_grad()
def spread(layout: Layout, rank: Rank, values: Mapping[str, Tensor]) -> None:
    """Move float32 values that bfloat16 holds exactly to anywhere in the interval that rounds to them.

    A checkpoint's weights lie on bfloat16's grid. Were their masters to begin there too, updates of much
    less than the grid's step would reach no rounded weight for many steps, then all of them at once; so
    spread, every update reaches its share of them. It is dithering: Roberts 1962, "Picture coding using
    pseudo-random noise", with the noise added once. Values off the grid, zeros and infinities are left alone.

    Where a value goes depends on its place in the global tensor alone, whoever holds it.

    Shapes: `values` are `rank`'s local tensors in `layout`, float32.
    """
    for shard in layout.shards(rank):
        seed = derive_seed(shard.box.tensor)
        for offset, shape in split(shard.box.shape, _ELEMENTS_AT_ONCE):
            block = view_of(
                values[shard.local],
                shard.offset,
                offset,
                shape,
            )
            start = tuple(a + b for a, b in zip(shard.box.start, offset))
            _spread(block.view(torch.int32), _noise(seed, start, shape, block.device))


def _spread(bits: Tensor, noise: Tensor) -> None:
    """Floats of one sign are ordered as their bits are, and bfloat16 keeps the upper half of these."""
    exponent = bits & 0x7F800000
    is_on_grid = (bits & 0xFFFF == 0) & (exponent != 0) & (exponent != 0x7F800000)
    bits.add_(noise.mul_(is_on_grid))


def _noise(seed: int, start: Shape, shape: Shape, device: torch.device) -> Tensor:
    """Odd int32 numbers in (-2^15, 2^15), so that none is half a step: hashes of the elements' indices."""
    mixed = torch.tensor(seed, device=device)
    for first, size in zip(start, shape):
        index = torch.arange(first, first + size, device=device)
        mixed = _mixed(mixed).unsqueeze(-1) + index

    return (_mixed(_mixed(mixed)) >> 48).int() | 1


def _mixed(numbers: Tensor) -> Tensor:
    """One to one, on int64."""
    return (numbers ^ (numbers >> 32 & 0xFFFFFFFF)) * _MIX
