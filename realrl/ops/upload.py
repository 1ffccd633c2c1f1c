"""Host tensors on a device, by one copy that the host does not wait for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16
"""The bytes at multiples of which a tensor begins in the message."""


def upload(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Return the tensors on `device`; those that are there, as they are.

    To a CUDA device all go in one message from pinned memory, on the current stream. PyTorch keeps the pinned
    memory until the copy is done, and then uses it again.
    """
    device = torch.device(device)
    if device.type == "cpu" or all(tensor.device.type == device.type for tensor in tensors):
        return [tensor.to(device) for tensor in tensors]
    message = packed(tensors, pin_memory=True).to(device, non_blocking=True)
    return unpacked(message, tensors)


def packed(tensors: Sequence[Tensor], *, pin_memory: bool = False) -> Tensor:
    """Return the bytes of host tensors in one buffer, uint8."""
    *starts, size = _starts(tensors)
    message = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
    for start, tensor in zip(starts, tensors, strict=True):
        _view(message, start, tensor).copy_(tensor)
    return message


def unpacked(message: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a buffer that `packed` made of tensors like these."""
    return [_view(message, start, tensor) for start, tensor in zip(_starts(like), like)]


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """Where each tensor begins, and the buffer ends."""
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT)
    return starts


def _view(message: Tensor, start: int, like: Tensor) -> Tensor:
    return message[start : start + like.nbytes].view(like.dtype).view(like.shape)
