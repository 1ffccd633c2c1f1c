"""Linear layers whose rows are bitwise independent of each other.

A library's product of `[M, K]` and `[K, N]` may sum in another order for another M. Tiled products therefore
all have the same M: rows are computed in tiles of `TILE_ROWS`, and the last tile is padded. A row's result is
then the same in a batch of any size and at any position.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

TILE_ROWS = 64
"""Rows of a tile: enough for an efficient product, few enough to keep small batches from mostly padding."""


def has_bf16_products() -> bool:
    """Whether this CPU has bfloat16 products in hardware.

    They are faster than float32 products in hardware, and several times slower without it.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


class PackedWeight:
    """A copy of a bf16 weight on the CPU, in the fastest layout for products of few rows; not differentiable.

    The copy is not updated when the weight changes.

    Source: oneDNN's blocked weights, as TorchInductor uses them.
    """

    @staticmethod
    def fits(weight: Tensor) -> bool:
        """Whether a weight can be packed on this machine."""
        return weight.is_cpu and weight.dtype == torch.bfloat16 and has_bf16_products()

    def __init__(self, weight: Tensor, num_rows: int) -> None:
        """Pack a weight `[N, K]` for products with about `num_rows` rows."""
        plain = weight.detach().contiguous()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, num_rows)

    def product(self, x: Tensor) -> Tensor:
        """Return `x @ weight.T`: `[T, K]` to `[T, N]`."""
        return torch.ops.mkldnn._linear_pointwise(
            x,
            self._packed,
            None,
            "none",
            [],
            "",
        )


class WeightGradients:
    """Computes gradients of matrices and adds them to their sums.

    A product is computed at once or deferred: the gradient of the layer's input does not need it.
    """

    def __init__(
        self, sum_of: Callable[[Tensor], Tensor], finished: Callable[[Tensor], None], *, puts_off: bool
    ) -> None:
        """`sum_of` returns the sum of a matrix's gradients; `finished` is called with each full one."""
        self.sum_of = sum_of
        self.is_last = False
        """Whether the gradients of the current micro-batch are the last ones."""
        self._finished = finished
        self._puts_off = puts_off
        self._products: list[Callable[[], None]] = []

    def of(self, weight: Tensor) -> Callable[[Tensor, Tensor], None]:
        """Return a function of `(x, grad)` that adds `grad.T @ x` to the sum of `weight`, now or later."""

        def add(x: Tensor, grad: Tensor) -> None:
            """Add the product now, or defer it."""
            product = partial(self._add, weight, x, grad)
            if self._puts_off:
                self._products.append(product)
            else:
                product()

        return add

    def take(self) -> list[Callable[[], None]]:
        """Return the products deferred since the last call; the caller calls each of them once."""
        taken = self._products
        self._products = []
        return taken

    def added(self, weight: Tensor) -> None:
        """Record that a micro-batch's gradient of a matrix has been added to its sum."""
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
    """Return `x @ weight.T + bias`.

    With `tiled`, the product is computed in tiles of rows. With `weight_gradients`, that object adds up the
    weight's gradient instead of autograd.

    Shapes: x `[T, K]`, weight `[N, K]`, bias `[N]`; returns `[T, N]`.
    """
    if isinstance(weight, PackedWeight):
        product = weight.product(x)
        return product if bias is None else product + bias

    add = None
    if weight_gradients is not None and torch.is_grad_enabled():
        add = weight_gradients.of(weight)
        weight = weight.detach()

    if not tiled and add is None:
        return F.linear(x, weight, bias)
    return _Product.apply(x, weight, bias, tiled, add)


def add_product_(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to a sum in the sum's type, which may be wider than that of the factors.

    On CUDA, the product accumulates into the sum, without rounding to the factors' type or a separate pass.

    Shapes: total `[M, N]`, left `[M, K]`, right `[K, N]`.
    """
    if not total.is_contiguous():
        # The sum is stored transposed, and a product writes contiguous rows.
        total, left, right = total.t(), right.t(), left.t()

    if total.dtype == left.dtype:
        total.addmm_(left, right)
    elif total.is_cuda:
        torch.ops.aten.addmm.dtype_out(total, left, right, total.dtype, out=total)
    else:
        total += torch.mm(left, right)


def tiled_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight.T`, computed in tiles of rows; not differentiable.

    Shapes: x `[T, K]`, weight `[N, K]`; returns `[T, N]`.
    """
    out = x.new_empty(len(x), len(weight))
    for start in range(0, len(x), TILE_ROWS):
        place = slice(start, start + TILE_ROWS)
        rows = x[place]
        num_rows = len(rows)
        num_missing = TILE_ROWS - num_rows
        if num_missing:
            rows = F.pad(rows, (0, 0, 0, num_missing))
        product = torch.mm(rows, weight.t())
        out[place] = product[:num_rows]
    return out


class _Product(torch.autograd.Function):
    """A linear layer with tiled rows, or with a weight gradient outside autograd."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tiled: bool,
        add: Callable[[Tensor, Tensor], None] | None,
    ):
        """Return the product: x `[T, K]`, weight `[N, K]`, bias `[N]` to `[T, N]`."""
        ctx.save_for_backward(x, weight)
        ctx.add = add
        if not tiled:
            return F.linear(x, weight, bias)
        product = tiled_product(x.contiguous(), weight)
        return product if bias is None else product + bias

    @staticmethod
    def backward(ctx, grad: Tensor):
        """Return the gradients of x, weight and bias, from that of the product, `[T, N]`."""
        x, weight = ctx.saved_tensors
        grad_weight: Tensor | None = None
        if ctx.add is None:
            grad_weight = grad.t() @ x
        else:
            ctx.add(x, grad)

        needs_bias = ctx.needs_input_grad[2]
        grad_bias = grad.sum(0) if needs_bias else None
        grad_x = grad @ weight
        return grad_x, grad_weight, grad_bias, None, None
