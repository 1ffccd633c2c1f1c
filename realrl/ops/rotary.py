"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), halves laid as in Hugging Face's Llama.

Shapes: T tokens, N heads (queries, keys and values), D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels

_TYPES = (torch.float32, torch.bfloat16)


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Turn each pair of the first `num_heads` heads by its angle, rounded once; copy the other heads.

    The gradient is the rotation back.

    Shapes: qkv `[T, N, D]`, cos and sin float32 `[T, D/2]`; returns `[T, N, D]`.
    """
    kernel = kernels.for_device(qkv.device) if qkv.dtype in _TYPES else None
    if kernel is None:
        return rotate_reference(qkv, cos, sin, num_heads)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return _Rotate.apply(qkv, cos, sin, num_heads, kernel)
    return _rotated(qkv, cos, sin, num_heads, kernel, inverse=False)


def rotate_reference(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """The kernels' twin, in PyTorch."""
    a, b = qkv[:, :num_heads].float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((turned.to(qkv.dtype), qkv[:, num_heads:]), dim=1)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int, kernel: kernels.Kernels
    ) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.constants = num_heads, kernel
        return _rotated(qkv, cos, sin, num_heads, kernel, inverse=False)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        return _rotated(dy, *ctx.saved_tensors, *ctx.constants, inverse=True), None, None, None, None


def _rotated(
    x: Tensor, cos: Tensor, sin: Tensor, num_heads: int, kernel: kernels.Kernels, *, inverse: bool
) -> Tensor:
    x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
    tokens, heads, size = x.shape
    _check(x, cos, sin, num_heads)
    y = torch.empty_like(x)
    places = x.data_ptr(), cos.data_ptr(), sin.data_ptr()
    sizes = tokens, heads, num_heads, size // 2, inverse, x.dtype == torch.bfloat16
    kernel.rotate((*places, *sizes), y)
    return y


def _check(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> None:
    """The kernel reads raw memory, so what does not fit is refused here."""
    tokens, heads, size = x.shape
    if size % 2 or not 0 <= num_heads <= heads:
        raise ValueError(f"rotate: {num_heads} heads of even size do not fit into {list(x.shape)}")
    for angles in (cos, sin):
        if angles.shape != (tokens, size // 2) or angles.dtype != torch.float32 or angles.device != x.device:
            got = f"{angles.dtype} {list(angles.shape)} on {angles.device}"
            wanted = f"float32 [{tokens}, {size // 2}] on {x.device}"
            raise ValueError(f"rotate: cos and sin must be {wanted}, got {got}")
