"""Reads weights from memory that the worker lends; see `lending`."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import torch
from torch import Tensor

from realrl.engines.vllm.protocol import DeviceLoan, HostLoan, Loan, View
from realrl.realloc.device_memory import DeviceMemory, open_device_memory
from realrl.realloc.shared import open_shared, pin

DEVICE = torch.device("cuda", 0)
"""A vLLM process sees no other."""


class Borrower:
    """Keeps the worker's host memory open for the run, and its device memory until `give_back`."""

    def __init__(self, *, pins: bool) -> None:
        """`pins`: host memory is copied to a CUDA device."""
        self._pins = pins
        self._host: tuple[HostLoan, Tensor] | None = None
        self._device: tuple[DeviceLoan, DeviceMemory] | None = None

    def tensors(self, loan: Loan, dtype: str, views: Sequence[View]) -> dict[str, Tensor]:
        """Return tensors by name, which share the lent memory."""
        memory = self._host_memory(loan) if isinstance(loan, HostLoan) else self._device_memory(loan)
        buffer = memory.view(getattr(torch, dtype))
        return {view.name: buffer.as_strided(view.shape, view.stride, view.offset) for view in views}

    def give_back(self) -> None:
        """Close device memory, of which nobody may have a tensor any more.

        Raises:
            RuntimeError: somebody has: the owner would free memory that is in use.
        """
        if self._device is None:
            return
        lent, self._device = weakref.ref(self._device[1]), None
        if lent() is not None:
            gc.collect()
        if lent() is not None:
            raise RuntimeError(
                "vLLM keeps a tensor of the worker's device memory after its weights are loaded"
            )

    def _host_memory(self, loan: HostLoan) -> Tensor:
        if self._host is None or self._host[0] != loan:
            memory = open_shared(torch.tensor(loan.handle))
            if self._pins:
                pin(memory)
            self._host = loan, memory

        return self._host[1]

    def _device_memory(self, loan: DeviceLoan) -> Tensor:
        if self._device is None:
            self._device = loan, open_device_memory(loan.handle, loan.num_bytes, DEVICE)
        opened, memory = self._device
        assert opened == loan, "device memory is lent anew before that of the last weights was given back"
        return memory.tensor(DEVICE)


def read_lent(loan: DeviceLoan) -> bytes:
    """Return the content of lent memory, which is closed again.

    Raises:
        OSError: the driver does not share memory between these processes.
    """
    memory = open_device_memory(loan.handle, loan.num_bytes, DEVICE)
    return bytes(memory.tensor(DEVICE).tolist())
