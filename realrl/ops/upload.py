"""Copies of host tensors to a device, in one transfer that the host does not wait for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_ALIGNMENT = 16
"""Alignment of each tensor in the message, in bytes."""


def upload(tensors: Sequence[Tensor], device: torch.device | str) -> list[Tensor]:
    """Return the tensors on `device`; tensors that are already there are returned unchanged.

    To a CUDA device, all tensors are copied in one message from pinned memory, on the current stream. PyTorch
    keeps the pinned memory until the copy is complete, and then reuses it.
    """
    device = torch.device(device)
    are_there = all(tensor.device.type == device.type for tensor in tensors)
    if device.type == "cpu" or are_there:
        return [tensor.to(device) for tensor in tensors]
    on_host = packed(tensors, pin_memory=True)
    message = on_host.to(device, non_blocking=True)
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
    views = []
    for start, tensor in zip(_starts(like), like):
        view = _view(message, start, tensor)
        views.append(view)
    return views


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """Return the start of each tensor, and the end of the buffer."""
    starts = [0]
    end = 0
    for tensor in tensors:
        num_units = -(-tensor.nbytes // _ALIGNMENT)
        end += num_units * _ALIGNMENT
        starts.append(end)
    return starts


def _view(message: Tensor, start: int, like: Tensor) -> Tensor:
    end = start + like.nbytes
    return message[start:end].view(like.dtype).view(like.shape)
