"""Root mean square layer normalisation (Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4).

Shapes: R rows of width W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.ops.kernels import cpu_module

_TYPES = (torch.float32, torch.bfloat16)
_PARALLEL_ELEMENTS = 1 << 14
"""Below, waking the threads costs more than the backward pass."""


def rms_norm(x: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * (weight + offset)` over the last dim, in float32 inside.

    Shapes: x `[..., W]`, weight `[W]`, of one type; returns `[..., W]`.
    """
    if not x.is_cpu or x.dtype not in _TYPES or weight.dtype != x.dtype or cpu_module() is None:
        return rms_norm_reference(x, weight, eps=eps, offset=offset)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _RmsNorm.apply(x, weight, eps, offset)
    return _forward(x.contiguous(), weight.contiguous(), eps, offset)[0]


def rms_norm_reference(x: Tensor, weight: Tensor, *, eps: float, offset: float = 0.0) -> Tensor:
    """The kernel's twin, in PyTorch."""
    if not offset:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.float(), weight.shape, weight.float() + offset, eps).to(x.dtype)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float, offset: float) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        y, inverse = _forward(x, weight, eps, offset)
        ctx.save_for_backward(x, weight, inverse)
        ctx.constants = eps, offset
        return y

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight, inverse = ctx.saved_tensors
        dy, dx = dy.contiguous(), torch.empty_like(x)
        threads = _threads() if x.numel() >= _PARALLEL_ELEMENTS else 1
        dweight = torch.empty(threads, len(weight), dtype=torch.float32)
        addresses = [t.data_ptr() for t in (dy, inverse, dx, dweight)]
        cpu_module().rms_norm_backward(*_job(x, weight, *ctx.constants), *addresses, threads)
        return dx, dweight.sum(0).to(weight.dtype), None, None


def _forward(x: Tensor, weight: Tensor, eps: float, offset: float) -> tuple[Tensor, Tensor]:
    y, inverse = torch.empty_like(x), torch.empty(x.shape[:-1], dtype=torch.float32)
    cpu_module().rms_norm(*_job(x, weight, eps, offset), y.data_ptr(), inverse.data_ptr(), _threads())
    return y, inverse


def _job(x: Tensor, weight: Tensor, eps: float, offset: float) -> tuple:
    width = len(weight)
    rows = x.numel() // width
    return x.data_ptr(), weight.data_ptr(), rows, width, eps, offset, x.dtype == torch.bfloat16


def _threads() -> int:
    return torch.get_num_threads()
