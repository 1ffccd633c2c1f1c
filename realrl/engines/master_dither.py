"""Masters of bfloat16 weights that lose no update."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from realrl.base.seeding import derive_seed
from realrl.layouts.boxes import split
from realrl.layouts.layout import Layout, Rank, Shape
from realrl.realloc.views import view_of

_ELEMENTS_AT_ONCE = 1 << 20
"""Bounds the memory of the noise."""
_MIX = 0x2545F4914F6CDD1D
"""An odd multiplier that spreads a number's bits; from Vigna 2016, arXiv:1402.6246, of xorshift*."""


@torch.no_grad()
def spread(layout: Layout, rank: Rank, values: Mapping[str, Tensor]) -> None:
    """Move float32 values that bfloat16 holds exactly to anywhere in the interval that rounds to them.

    A checkpoint's weights lie on bfloat16's grid. If their masters began there too, updates much smaller than
    the grid's step would reach no rounded weight for many steps, and then all of them at once. With masters
    spread over the interval, every update reaches its share of the weights. Values off the grid, zeros and
    infinities do not move. The new value depends only on the element's place in the global tensor.

    Source: dithering, Roberts 1962, "Picture coding using pseudo-random noise", with the noise added once.

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
    """Add noise to the bits that bfloat16 drops; floats of one sign are ordered as their bits are."""
    exponent = bits & 0x7F800000
    is_on_grid = (bits & 0xFFFF == 0) & (exponent != 0) & (exponent != 0x7F800000)
    bits.add_(noise.mul_(is_on_grid))


def _noise(seed: int, start: Shape, shape: Shape, device: torch.device) -> Tensor:
    """Return a hash of each element's index: odd, in (-2^15, 2^15), so that it is never half a step."""
    mixed = torch.tensor(seed, device=device)
    for first, size in zip(start, shape):
        index = torch.arange(first, first + size, device=device)
        mixed = _mixed(mixed).unsqueeze(-1) + index

    return (_mixed(_mixed(mixed)) >> 48).int() | 1


def _mixed(numbers: Tensor) -> Tensor:
    """Return a one-to-one mixture of int64 numbers."""
    return (numbers ^ (numbers >> 32 & 0xFFFFFFFF)) * _MIX
