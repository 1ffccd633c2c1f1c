"""Gated linear units (Shazeer 2020, arXiv:2002.05202), and plain activations.

Shapes: T tokens, I the intermediate size of an MLP.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.ops import kernels

Activation = Literal["silu", "gelu_tanh"]
"""`gelu_tanh` is transformers' `gelu_pytorch_tanh` and `gelu_new`."""

_TYPES = (torch.float32, torch.bfloat16)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """Return the activation of each element.

    On the CPU it is a gated unit with ups of one, so that a row is bitwise independent of other rows.

    Shapes: x `[T, I]`; returns `[T, I]`.
    """
    if _kernel(x) is None or x.is_cuda:
        return _activation(x, activation)
    gate_up = torch.cat((x, torch.ones_like(x)), dim=-1)
    return gated(gate_up, activation)


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """Return `activation(gate) * up`, rounded once.

    Shapes: gate_up `[T, 2I]`, the gates before the ups; returns `[T, I]`.
    """
    kernel = _kernel(gate_up)
    if kernel is None:
        return gated_reference(gate_up, activation)
    if torch.is_grad_enabled() and gate_up.requires_grad:
        return _Gated.apply(gate_up, activation, kernel)
    return _forward(gate_up.contiguous(), activation, kernel)


def gated_reference(gate_up: Tensor, activation: Activation) -> Tensor:
    """Compute `gated` in PyTorch.

    Shapes: as for `gated`.
    """
    gate, up = gate_up.float().chunk(2, dim=-1)
    y = _activation(gate, activation) * up
    return y.to(gate_up.dtype)


def _activation(x: Tensor, activation: Activation) -> Tensor:
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh")


def _kernel(x: Tensor) -> kernels.Kernels | None:
    if x.dtype not in _TYPES:
        return None
    return kernels.for_device(x.device)


class _Gated(torch.autograd.Function):
    """A gated unit by a kernel."""

    @staticmethod
    def forward(ctx, gate_up: Tensor, activation: Activation, kernel: kernels.Kernels) -> Tensor:
        """Return the gated unit's output: `[T, 2I]` to `[T, I]`."""
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        ctx.activation = activation
        ctx.kernel = kernel
        return _forward(gate_up, activation, kernel)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the gates and ups, `[T, 2I]`, from that of the output, `[T, I]`."""
        (gate_up,) = ctx.saved_tensors
        dy = dy.contiguous()
        gradient = torch.empty_like(gate_up)
        job = _job(gate_up, ctx.activation)
        ctx.kernel.gated_backward(job, dy, gradient)
        return gradient, None, None


def _forward(gate_up: Tensor, activation: Activation, kernel: kernels.Kernels) -> Tensor:
    rows, width = gate_up.shape
    y = gate_up.new_empty(rows, width // 2)
    kernel.gated(_job(gate_up, activation), y)
    return y


def _job(gate_up: Tensor, activation: Activation) -> tuple:
    """Return the fields of `GatedJob` in csrc/gated.h."""
    rows, width = gate_up.shape
    if width % 2:
        raise ValueError(f"gated: expected as many gates as ups, got {width} columns")
    return (
        gate_up.data_ptr(),
        rows,
        width // 2,
        activation == "gelu_tanh",
        gate_up.dtype == torch.bfloat16,
    )
