"""Weights that wait in host memory while the device has other things to do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arrival:
    """A tensor on its way to its device."""

    tensor: Tensor
    event: torch.cuda.Event | None
    """None where it is there already."""

    def wait(self) -> Tensor:
        """The tensor, for use on the current stream from now on."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.event)
            self.tensor.record_stream(stream)
        return self.tensor


class HostCopy:
    """A tensor's copy in host memory, pinned where the tensor is on a CUDA device.

    Copies there and back run on a stream of their own, beside whatever the device computes; what is queued
    on the current stream before `HostCopy` is in the copy.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._device = tensor.device
        self._stream = torch.cuda.Stream(tensor.device) if tensor.is_cuda else None
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._copy(self._host, tensor)

    def bring_back(self) -> Arrival:
        """Begin to copy it to the device."""
        tensor = torch.empty(self._host.shape, dtype=self._host.dtype, device=self._device)
        return Arrival(tensor, self._copy(tensor, self._host))

    def _copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        if self._stream is None:
            target.copy_(source)
            return None
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        for tensor in (target, source):
            if tensor.is_cuda:
                tensor.record_stream(self._stream)
        return self._stream.record_event()
