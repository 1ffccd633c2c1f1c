"""The arguments of compiled kernels: addresses of tensors, and numbers."""

from __future__ import annotations

import torch
from torch import Tensor

NO_WINDOW = 1 << 40
"""Window passed to kernels for layers without one: more tokens than any sequence has."""


def address(tensor: Tensor | None) -> int:
    """Return the address of a tensor, 0 without one."""
    return 0 if tensor is None else tensor.data_ptr()


def addresses(*tensors: Tensor) -> list[int]:
    """Return the addresses of tensors."""
    return [tensor.data_ptr() for tensor in tensors]


def logits_job(logits: Tensor, labels: Tensor, mapping: tuple) -> tuple:
    """Return the fields of `LogitsJob` in csrc/logits.h."""
    is_bf16 = logits.dtype == torch.bfloat16
    return (
        logits.data_ptr(),
        labels.data_ptr(),
        *logits.shape,
        *mapping,
        is_bf16,
    )
