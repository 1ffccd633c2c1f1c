"""Gated linear units (Shazeer 2020, arXiv:2002.05202), and activations by themselves.

Shapes: T tokens, I the size between an MLP's two products.
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
    """The activation of each element, `[T, I]`: on the CPU a gated unit whose ups are one, so that a row does
    not depend on the others in any bit."""
    if _kernel(x) is None or x.is_cuda:
        return _activation(x, activation)
    return gated(torch.cat((x, torch.ones_like(x)), dim=-1), activation)


def gated(gate_up: Tensor, activation: Activation) -> Tensor:
    """`activation(gate) * up`, rounded once.

    Shapes: gate_up `[T, 2I]`, the gates before the ups; returns `[T, I]`.
    """
    kernel = _kernel(gate_up)
    if kernel is None:
        return gated_reference(gate_up, activation)
    if torch.is_grad_enabled() and gate_up.requires_grad:
        return _Gated.apply(gate_up, activation, kernel)
    return _forward(gate_up.contiguous(), activation, kernel)


def gated_reference(gate_up: Tensor, activation: Activation) -> Tensor:
    """The kernels' twin, in PyTorch."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (_activation(gate, activation) * up).to(gate_up.dtype)


def _activation(x: Tensor, activation: Activation) -> Tensor:
    return F.silu(x) if activation == "silu" else F.gelu(x, approximate="tanh")


def _kernel(x: Tensor) -> kernels.Kernels | None:
    return kernels.for_device(x.device) if x.dtype in _TYPES else None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up: Tensor, activation: Activation, kernel: kernels.Kernels) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        ctx.activation, ctx.kernel = activation, kernel
        return _forward(gate_up, activation, kernel)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, None, None]:
        (gate_up,) = ctx.saved_tensors
        dy, gradient = dy.contiguous(), torch.empty_like(gate_up)
        ctx.kernel.gated_backward(_job(gate_up, ctx.activation), dy, gradient)
        return gradient, None, None


def _forward(gate_up: Tensor, activation: Activation, kernel: kernels.Kernels) -> Tensor:
    y = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
    kernel.gated(_job(gate_up, activation), y)
    return y


def _job(gate_up: Tensor, activation: Activation) -> tuple:
    rows, width = gate_up.shape
    if width % 2:
        raise ValueError(f"gated: expected as many gates as ups, got {width} columns")
    is_bf16 = gate_up.dtype == torch.bfloat16
    return gate_up.data_ptr(), rows, width // 2, activation == "gelu_tanh", is_bf16
