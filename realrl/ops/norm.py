"""Root mean square layer normalisation (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

Shapes: R rows of width W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.ops.kernels import built_cpu_module, cpu_module

_TYPES = (torch.float32, torch.bfloat16)
_PARALLEL_ELEMENTS = 1 << 14
"""Elements below which the backward pass runs on one thread, as starting more would cost more time."""


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0) -> Tensor:
    """Return `x / sqrt(mean(x^2) + eps) * (weight + offset)` over the last dim, computed in float32.

    Shapes: x `[..., W]`, weight `[W]`, of one type; returns `[..., W]`.
    """
    if not _runs_on_kernel(x, weight):
        return rms_norm_reference(x, weight, eps=eps, offset=offset)
    needs_gradient = x.requires_grad or weight.requires_grad
    if torch.is_grad_enabled() and needs_gradient:
        return _RmsNorm.apply(x, weight, eps, offset)
    y, _ = _forward(x.contiguous(), weight.contiguous(), eps, offset)
    return y


def rms_norm_reference(x: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0) -> Tensor:
    """Compute `rms_norm` in PyTorch.

    Shapes: as for `rms_norm`.
    """
    if not offset:
        return F.rms_norm(x, weight.shape, weight, eps)
    wide_weight = weight.float() + offset
    y = F.rms_norm(x.float(), weight.shape, wide_weight, eps)
    return y.to(x.dtype)


def _runs_on_kernel(x: Tensor, weight: Tensor) -> bool:
    fits = x.is_cpu and x.dtype in _TYPES and weight.dtype == x.dtype
    return fits and cpu_module() is not None


class _RmsNorm(torch.autograd.Function):
    """Normalisation by the CPU kernel."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        """Return the normalised rows: `[..., W]` to `[..., W]`."""
        x = x.contiguous()
        weight = weight.contiguous()
        y, inverse = _forward(x, weight, eps, offset)
        ctx.save_for_backward(x, weight, inverse)
        ctx.eps = eps
        ctx.offset = offset
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        """Return the gradients of x, `[..., W]`, and of the weight, `[W]`, from that of the output."""
        x, weight, inverse = ctx.saved_tensors
        dy = dy.contiguous()
        dx = torch.empty_like(x)
        threads = 1
        if x.numel() >= _PARALLEL_ELEMENTS:
            threads = torch.get_num_threads()

        # Each thread sums its own rows.
        dweight = torch.empty(threads, len(weight), dtype=torch.float32)
        built_cpu_module().rms_norm_backward(
            *_job(x, weight, ctx.eps, ctx.offset),
            dy.data_ptr(),
            inverse.data_ptr(),
            dx.data_ptr(),
            dweight.data_ptr(),
            threads,
        )
        total = dweight.sum(0).to(weight.dtype)
        return dx, total, None, None


def _forward(x: Tensor, weight: Tensor, eps: float, offset: float) -> tuple[Tensor, Tensor]:
    """Return the normalised rows, `[..., W]`, and the inverse root mean square of each, `[...]`."""
    y = torch.empty_like(x)
    inverse = torch.empty(x.shape[:-1], dtype=torch.float32)
    built_cpu_module().rms_norm(
        *_job(x, weight, eps, offset),
        y.data_ptr(),
        inverse.data_ptr(),
        torch.get_num_threads(),
    )
    return y, inverse


def _job(x: Tensor, weight: Tensor, eps: float, offset: float) -> tuple:
    """Return the arguments that the forward and the backward kernel share."""
    width = len(weight)
    return (
        x.data_ptr(),
        weight.data_ptr(),
        x.numel() // width,
        width,
        eps,
        offset,
        x.dtype == torch.bfloat16,
    )
