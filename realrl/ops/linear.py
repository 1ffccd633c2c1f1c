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
    """Adds gradients of matrices to their sums, by the products that make them.

    A product is made at once or put off, as the backward pass of the layer's input does not need it.
    """

    def __init__(
        self, sum_of: Callable[[Tensor], Tensor], finished: Callable[[Tensor], None], *, puts_off: bool
    ) -> None:
        """`sum_of`: the sum of a matrix's gradients. `finished`: told of a matrix once its sum is whole."""
        self.sum_of = sum_of
        self.is_last = False
        """Whether what is added now are the last gradients of their matrices."""
        self._finished, self._puts_off = finished, puts_off
        self._products: list[Callable[[], None]] = []

    def of(self, weight: Tensor) -> Callable[[Tensor, Tensor], None]:
        """Takes `(x, grad)`, and adds `grad.T @ x` to the sum of `weight`, now or later."""

        def add(x: Tensor, grad: Tensor) -> None:
            if self._puts_off:
                self._products.append(lambda: self._add(weight, x, grad))
            else:
                self._add(weight, x, grad)

        return add

    def take(self) -> list[Callable[[], None]]:
        """What was put off since the last time: each to be called once."""
        taken, self._products = self._products, []
        return taken

    def added(self, weight: Tensor) -> None:
        """To be called when a micro-batch's gradient of a matrix is in the sum."""
        if self.is_last:
            self._finished(weight)

    @torch.no_grad()
    def _add(self, weight: Tensor, x: Tensor, grad: Tensor) -> None:
        add_product_(self.sum_of(weight), grad.t(), x)
        self.added(weight)


def linear(
    x: Tensor,
    weight: Tensor | PackedWeight,
    bias: Tensor | None = None,
    *,
    tiled: bool = False,
    weight_gradients: WeightGradients | None = None,
) -> Tensor:
    """`x @ weight.T + bias`; `tiled`: in tiles of rows; `weight_gradients`: takes the weight's gradient.

    Shapes: x `[T, K]`, weight `[N, K]`, bias `[N]`; returns `[T, N]`.
    """
    if isinstance(weight, PackedWeight):
        product = weight.product(x)
        return product if bias is None else product + bias
    add = None
    if weight_gradients is not None and torch.is_grad_enabled():
        add, weight = weight_gradients.of(weight), weight.detach()
    if not tiled and add is None:
        return F.linear(x, weight, bias)
    return _Product.apply(x, weight, bias, tiled, add)


def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to a sum in its own type, which may be wider than theirs.

    On CUDA the product adds to the sum itself, without a rounding to its factors' type and a pass of its own.
    Shapes: total `[M, N]`, left `[M, K]`, right `[K, N]`.
    """
    if not total.is_contiguous():
        # A matrix that is kept transposed: products write rows.
        total, left, right = total.t(), right.t(), left.t()
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
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tiled: bool,
        add: Callable[[Tensor, Tensor], None] | None,
    ):
        ctx.save_for_backward(x, weight)
        ctx.add = add
        if not tiled:
            return F.linear(x, weight, bias)
        product = tiled_product(x.contiguous(), weight)
        return product if bias is None else product + bias

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        if ctx.add is not None:
            ctx.add(x, grad)
        grad_weight = grad.t() @ x if ctx.add is None else None
        grad_bias = grad.sum(0) if ctx.needs_input_grad[2] else None
        return grad @ weight, grad_weight, grad_bias, None, None
