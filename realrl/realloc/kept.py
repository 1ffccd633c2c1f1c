"""What a rank both holds and wants: copied from the tensors of the source to the target's, and never sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from realrl.layouts.boxes import split
from realrl.layouts.pieces import Piece
from realrl.layouts.plan import TransferPlan
from realrl.ops.box_copies import copy
from realrl.realloc.views import Tensors, view_of

_BLEND_ELEMENTS = 1 << 20
"""Elements that are blended at a time; bounds the memory of their rounded copy."""

_Wire = Callable[[Tensor], torch.dtype]
"""Returns the dtype in which a local tensor travels."""


def copy_kept(
    plan: TransferPlan, rank: int, source: Tensors, target: Tensors, eta: float, wire: _Wire
) -> None:
    """Copy or blend what `rank` both holds and wants.

    A blend rounds what is kept as the wire would, so that the result does not depend on the plan.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for kept in plan.kept:
        if rank in kept.ranks:
            pairs += _pairs(kept.piece, rank, source, target, wire)
    if eta == 1.0:
        held_views = [held for held, _ in pairs]
        wanted_views = [wanted for _, wanted in pairs]
        copy(held_views, wanted_views)
        return

    for held, wanted in pairs:
        zeros = (0,) * held.dim()
        for offset, shape in split(held.shape, _BLEND_ELEMENTS):
            rounded = view_of(held, zeros, offset, shape).to(wire(held))
            blended = view_of(wanted, zeros, offset, shape)
            copy([rounded], [blended], eta=eta)


def _pairs(
    piece: Piece, rank: int, source: Tensors, target: Tensors, wire: _Wire
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views of a kept piece's regions: in the source, and in each copy in the target."""
    for held, copies in zip(piece.sources(rank), piece.targets(rank), strict=True):
        zeros = (0,) * len(held.shape)
        for wanted in copies:
            held_tensor = source[held.local]
            wanted_tensor = target[wanted.local]
            held_dtype = wire(held_tensor)
            wanted_dtype = wire(wanted_tensor)
            assert held_dtype == wanted_dtype, (
                f"{held.tensor} is {held_tensor.dtype} here and {wanted_tensor.dtype} in the target"
            )
            held_view = view_of(
                held_tensor,
                held.offset,
                zeros,
                held.shape,
            )
            wanted_view = view_of(
                wanted_tensor,
                wanted.offset,
                zeros,
                held.shape,
            )
            yield held_view, wanted_view
