"""Views of boxes in local tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import le, mul

from torch import Tensor

from realrl.layouts.layout import Shape

Tensors = Mapping[str, Tensor]
"""Local tensors by name."""


def view_of(tensor: Tensor, region: Shape, offset: Sequence[int], shape: Shape) -> Tensor:
    """Return the block of `shape` at `offset` in the region of a local tensor that begins at `region`.

    Shapes: `region`, `offset` and `shape` have one number per dimension of `tensor`; returns a view `shape`.
    """
    sizes = tensor.shape
    strides = tensor.stride()
    assert len(sizes) == len(shape), f"{tuple(sizes)} cannot hold a box of shape {shape}"

    begin = [a + b for a, b in zip(region, offset)]
    end = [a + n for a, n in zip(begin, shape)]
    fits = all(map(le, end, sizes))
    assert fits, f"a box of shape {shape} at {begin} does not lie in {tuple(sizes)}"

    first = tensor.storage_offset()
    first += sum(map(mul, begin, strides))
    return tensor.as_strided(shape, strides, first)
