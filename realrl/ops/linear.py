"""Linear layers whose rows do not depend on each other in any bit.

A library's product of `[M, K]` and `[K, N]` takes another order of sums for another M. Here every product has
the same M: rows go in tiles of `TILE_ROWS`, the last one filled up, so that a row's result is the same in a
batch of any size and at any place in it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

TILE_ROWS = 64
"""Enough for a product to be efficient, few enough that a small batch is not mostly filling."""


def has_bf16_products() -> bool:
    """Whether this CPU multiplies bfloat16 itself, which is then faster than float32, else several times
    slower.
    """
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class PackedWeight:
    """A bf16 weight on the CPU in the layout that products of few rows are fastest with; not differentiable.

    A copy: it does not follow the weight. Source: oneDNN's blocked weights, as TorchInductor uses them.
    """

    @staticmethod
    def fits(weight: Tensor) -> bool:
        return weight.is_cpu and weight.dtype == torch.bfloat16 and has_bf16_products()

    def __init__(self, weight: Tensor, num_rows: int) -> None:
        """For products with about `num_rows` rows."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), num_rows)

    def product(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, None, "none", [], "")


class WeightGradients:
    """Gradients of weights that are put off: what the backward pass of an input does not need."""

    def __init__(self) -> None:
        self._products: list[Callable[[], None]] = []

    def of(self, weight: Tensor) -> Callable[[Tensor, Tensor], None]:
        """Takes `(x, grad)`, and keeps `grad.T @ x` for later, to be accumulated into `weight.grad`."""

        def put_off(x: Tensor, grad: Tensor) -> None:
            self._products.append(lambda: torch.autograd.backward(weight, grad.t() @ x))

        return put_off

    def take(self) -> list[Callable[[], None]]:
        """What was put off since the last time: each to be called once."""
        taken, self._products = self._products, []
        return taken


def linear(
    x: Tensor,
    weight: Tensor | PackedWeight,
    bias: Tensor | None = None,
    *,
    tiled: bool = False,
    weight_gradients: WeightGradients | None = None,
) -> Tensor:
    """`x @ weight.T + bias`; `tiled`: in tiles of rows; `weight_gradients`: puts the weight's gradient off.

    Shapes: x `[T, K]`, weight `[N, K]`, bias `[N]`; returns `[T, N]`.
    """
    if isinstance(weight, PackedWeight):
        product = weight.product(x)
        return product if bias is None else product + bias
    if not tiled and weight_gradients is None:
        return F.linear(x, weight, bias)
    later = None
    if weight_gradients is not None:
        later, weight = weight_gradients.of(weight), weight.detach()
    product = _Product.apply(x, weight, tiled, later)
    return product if bias is None else product + bias


def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to a sum in its own type, which may be wider than theirs.

    On CUDA the product adds to the sum itself, without a rounding to its factors' type and a pass of its own.
    Shapes: total `[M, N]`, left `[M, K]`, right `[K, N]`.
    """
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.ops.aten.addmm.dtype_out(total, left, right, total.dtype, out=total)
    else:
        total += torch.mm(left, right)


def tiled_product(x: Tensor, weight: Tensor) -> Tensor:
    """`x @ weight.T` in tiles of rows; not differentiable."""
    out = x.new_empty(len(x), len(weight))
    for start in range(0, len(x), TILE_ROWS):
        rows = x[start : start + TILE_ROWS]
        full = rows if len(rows) == TILE_ROWS else F.pad(rows, (0, 0, 0, TILE_ROWS - len(rows)))
        out[start : start + TILE_ROWS] = torch.mm(full, weight.t())[: len(rows)]
    return out


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, tiled: bool, later: Callable[[Tensor, Tensor], None] | None):
        ctx.save_for_backward(x, weight)
        ctx.later = later
        return tiled_product(x.contiguous(), weight) if tiled else F.linear(x, weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        if ctx.later is not None:
            ctx.later(x, grad)
        return grad @ weight, grad.t() @ x if ctx.later is None else None, None, None
