"""Offloading of weights to host memory while the device is used for other work."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Arrival:
    """A tensor on its way to its device."""

    tensor: Tensor
    event: torch.cuda.Event | None
    """Recorded after the copy; None if the copy is complete."""

    def wait(self) -> Tensor:
        """Make the current stream wait for the copy, and return the tensor."""
        if self.event is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.event)
            # The tensor was allocated for another stream, whose allocator must not reuse it too early.
            self.tensor.record_stream(stream)

        return self.tensor


class HostCopy:
    """A tensor's copy in host memory, pinned where the tensor is on a CUDA device.

    Copies in both directions run on their own stream, concurrently with the device's computation. The copy
    contains whatever was queued on the current stream before `HostCopy`.
    """

    def __init__(self, tensor: Tensor) -> None:
        """Begin to copy `tensor` to host memory."""
        self._device = tensor.device
        self._stream = torch.cuda.Stream(tensor.device) if tensor.is_cuda else None
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        self._copy(self._host, tensor)

    def bring_back(self) -> Arrival:
        """Begin to copy the tensor to its device."""
        host = self._host
        tensor = torch.empty(host.shape, dtype=host.dtype, device=self._device)
        event = self._copy(tensor, host)
        return Arrival(tensor, event)

    def _copy(self, target: Tensor, source: Tensor) -> torch.cuda.Event | None:
        """Copy on this object's stream; return an event that follows the copy, or None on a CPU."""
        if self._stream is None:
            target.copy_(source)
            return None

        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
        # Either may be freed before the copy has run; its memory must not be reused until then.
        for tensor in (target, source):
            if tensor.is_cuda:
                tensor.record_stream(self._stream)

        return self._stream.record_event()
