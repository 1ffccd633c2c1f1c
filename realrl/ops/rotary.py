"""Rotary position embeddings (Su et al. 2021, arXiv:2104.09864), in Hugging Face's half-split layout.

Shapes: T tokens, N heads (queries, keys and values), D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops import kernels

_TYPES = (torch.float32, torch.bfloat16)


def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Rotate each pair of the first `num_heads` heads by its angle, and copy the other heads.

    The result is rounded once. The gradient is the inverse rotation.

    Shapes: qkv `[T, N, D]`, cos and sin float32 `[T, D/2]`; returns `[T, N, D]`.
    Raises:
        ValueError: heads or angles that do not fit into `qkv`.
    """
    kernel = None
    if qkv.dtype in _TYPES:
        kernel = kernels.for_device(qkv.device)
    if kernel is None:
        return rotate_reference(qkv, cos, sin, num_heads)
    if torch.is_grad_enabled() and qkv.requires_grad:
        return _Rotate.apply(qkv, cos, sin, num_heads, kernel)
    return _rotated(qkv, cos, sin, num_heads, kernel, inverse=False)


def rotate_reference(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> Tensor:
    """Compute `rotate` in PyTorch.

    Shapes: as for `rotate`.
    """
    heads = qkv[:, :num_heads].float()
    others = qkv[:, num_heads:]
    a, b = heads.chunk(2, dim=-1)
    cos = cos[:, None]
    sin = sin[:, None]
    first = a * cos - b * sin
    second = b * cos + a * sin
    rotated = torch.cat((first, second), dim=-1)
    rotated = rotated.to(qkv.dtype)
    return torch.cat((rotated, others), dim=1)


class _Rotate(torch.autograd.Function):
    """Rotation by a kernel."""

    @staticmethod
    def forward(
        ctx, qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int, kernel: kernels.Kernels
    ) -> Tensor:
        """Return the rotated heads: `[T, N, D]` to `[T, N, D]`."""
        ctx.save_for_backward(cos, sin)
        ctx.num_heads = num_heads
        ctx.kernel = kernel
        return _rotated(qkv, cos, sin, num_heads, kernel, inverse=False)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None, None, None]:
        """Return the gradient of the heads: `[T, N, D]` to `[T, N, D]`."""
        cos, sin = ctx.saved_tensors
        dx = _rotated(
            dy,
            cos,
            sin,
            ctx.num_heads,
            ctx.kernel,
            inverse=True,
        )
        return dx, None, None, None, None


def _rotated(
    x: Tensor, cos: Tensor, sin: Tensor, num_heads: int, kernel: kernels.Kernels, *, inverse: bool
) -> Tensor:
    """Return the heads, `[T, N, D]`, with the first `num_heads` rotated by the kernel."""
    x = x.contiguous()
    cos = cos.contiguous()
    sin = sin.contiguous()
    _check(x, cos, sin, num_heads)
    num_tokens, num_all_heads, size = x.shape
    y = torch.empty_like(x)
    job = (
        x.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        num_tokens,
        num_all_heads,
        num_heads,
        size // 2,
        inverse,
        x.dtype == torch.bfloat16,
    )
    kernel.rotate(job, y)
    return y


def _check(x: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> None:
    """Raise if an argument does not fit: the kernel reads raw memory."""
    num_tokens, num_all_heads, size = x.shape
    is_even = size % 2 == 0
    if not is_even or not 0 <= num_heads <= num_all_heads:
        raise ValueError(f"rotate: {num_heads} heads of even size do not fit into {list(x.shape)}")
    shape = num_tokens, size // 2
    _check_angles(cos, shape, x.device)
    _check_angles(sin, shape, x.device)


def _check_angles(angles: Tensor, shape: tuple[int, int], device: torch.device) -> None:
    has_shape = angles.shape == shape
    has_type = angles.dtype == torch.float32
    if has_shape and has_type and angles.device == device:
        return
    got = f"{angles.dtype} {list(angles.shape)} on {angles.device}"
    wanted = f"float32 {list(shape)} on {device}"
    raise ValueError(f"rotate: cos and sin must be {wanted}, got {got}")
