"""Lends memory with arriving weights to a vLLM process.

    on                  weights arrive in              vLLM reads
    the CPU             host memory, kept for the run  that
    CUDA                device memory of one version   that, by a handle that CUDA's driver makes
    CUDA, where the     device memory of one version   pinned host memory, kept for the run, part by part
    driver refuses                                     while later parts are copied there

Nothing is written into lent memory between `Load` and the answer to `Adopt`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from realrl.base.waiting import wait_for_device
from realrl.engines.vllm.protocol import DeviceLoan, HostLoan, Loan, Probe, Probed, View
from realrl.realloc.device_memory import DeviceMemory, allocate
from realrl.realloc.shared import SharedMemory, pin

logger = logging.getLogger(__name__)

_PART_BYTES = 256 << 20
"""Of weights that are staged: a copy takes some milliseconds, beside which a message is nothing."""
_PROBE_BYTES = 64


class Part(NamedTuple):
    """Tensors that lie in the bytes from `start` to `stop` of a buffer."""

    start: int
    stop: int
    views: tuple[View, ...]


class Lender(Protocol):
    """Memory for one model's arriving weights."""

    def memory(self) -> Tensor:
        """Return memory for a version of the weights, uint8, on the device on which weights arrive."""

    def lend(self, views: Sequence[View], itemsize: int) -> Iterator[tuple[Loan, tuple[View, ...]]]:
        """Yield what vLLM is to load, loan by loan, once the current stream has written it."""

    def take_back(self) -> None:
        """Free the memory of this version, of which nobody has tensors any more."""


class HostLender:
    """Lends the host memory in which weights arrive."""

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._shared: SharedMemory | None = None

    def memory(self) -> Tensor:
        """Return the same host memory for every version."""
        if self._shared is None:
            self._shared = SharedMemory(self._num_bytes)
        return self._shared.memory

    def lend(self, views: Sequence[View], itemsize: int) -> Iterator[tuple[Loan, tuple[View, ...]]]:
        """Yield all tensors as one loan."""
        assert self._shared is not None, "weights are lent that have not arrived"
        yield _host_loan(self._shared), tuple(views)

    def take_back(self) -> None:
        """Keep the memory: new memory would have to be zeroed and mapped page by page."""


class DeviceLender:
    """Lends device memory, or copies of it in host memory where the driver does not lend it."""

    def __init__(self, num_bytes: int, device: torch.device, ask: Callable[[Probe], Probed]) -> None:
        """`ask` has vLLM's process answer."""
        self._num_bytes, self._device, self._ask = num_bytes, device, ask
        self._memory: DeviceMemory | None = None
        self._is_lent: bool | None = None
        """Whether the driver lends memory; None until it was tried."""
        self._staging: Staging | None = None

    def memory(self) -> Tensor:
        """Return device memory for the next version."""
        if self._memory is None:
            # PyTorch's allocator keeps what a training call has freed, and this is not its memory.
            _settle(self._device)
            self._memory = allocate(self._num_bytes, self._device)

        return self._memory.tensor(self._device)

    def lend(self, views: Sequence[View], itemsize: int) -> Iterator[tuple[Loan, tuple[View, ...]]]:
        """Yield all tensors as one loan of device memory, or parts of them in host memory."""
        if self._is_lent is None:
            self._is_lent = self._try()
        # vLLM takes the memory that PyTorch keeps here for later.
        _settle(self._device)
        assert self._memory is not None, "weights are lent that have not arrived"
        if self._is_lent:
            yield DeviceLoan(handle=self._memory.handle(), num_bytes=self._num_bytes), tuple(views)
            return

        if self._staging is None:
            self._staging = Staging(self._num_bytes, self._device)
        yield from self._staging.lend(self.memory(), parts_of(views, itemsize, _PART_BYTES))

    def take_back(self) -> None:
        """Free the device memory of this version."""
        self._memory = None

    def _try(self) -> bool:
        content = os.urandom(_PROBE_BYTES)
        memory = allocate(len(content), self._device)
        memory.tensor(self._device).copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        _settle(self._device)

        try:
            loan = DeviceLoan(handle=memory.handle(), num_bytes=len(content))
        except OSError as error:
            found = Probed(problem=str(error))
        else:
            found = self._ask(Probe(memory=loan))

        if found.content == content:
            logger.info("vLLM reads weights from this process's device memory")
            return True

        logger.warning(
            "vLLM cannot read this process's device memory (%s): weights go through pinned host memory, which"
            " takes tens of times as long",
            found.problem or "what it read is not what is there",
        )
        return False


class Staging:
    """Pinned host memory for all weights, into which parts are copied one after the other."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self._shared = SharedMemory(num_bytes)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._stream:
            pin(self._shared.memory)

    def lend(self, memory: Tensor, parts: Sequence[Part]) -> Iterator[tuple[Loan, tuple[View, ...]]]:
        """Yield each part once it is copied, while later ones are copied on a stream of their own.

        All of `memory` must have been written.
        """
        copied = [self._copy(memory, part) for part in parts]
        for part, event in zip(parts, copied, strict=True):
            if event:
                wait_for_device(event.synchronize)
            yield _host_loan(self._shared), part.views

    def _copy(self, memory: Tensor, part: Part) -> torch.cuda.Event | None:
        """Begin to copy a part; return an event that follows the copy, or None if it is complete."""
        span = slice(part.start, part.stop)
        with torch.cuda.stream(self._stream):
            self._shared.memory[span].copy_(memory[span], non_blocking=True)
        return self._stream.record_event() if self._stream else None


def parts_of(views: Sequence[View], itemsize: int, part_bytes: int) -> list[Part]:
    """Split a buffer's tensors into parts of about `part_bytes`, with each tensor whole in one part."""
    parts: list[Part] = []
    held: list[View] = []
    start = stop = 0

    for view in sorted(views, key=lambda view: view.offset):
        begins_anew = view.offset * itemsize >= max(stop, start + part_bytes)
        if held and begins_anew:
            parts.append(Part(start, stop, tuple(held)))
            held, start = [], view.offset * itemsize

        held.append(view)
        stop = max(stop, _end(view) * itemsize)

    return [*parts, Part(start, stop, tuple(held))] if held else parts


def _end(view: View) -> int:
    """Return the element after the last one of a view."""
    steps = ((size - 1) * stride for size, stride in zip(view.shape, view.stride, strict=True))
    return view.offset + sum(steps) + 1


def _host_loan(shared: SharedMemory) -> HostLoan:
    return HostLoan(handle=tuple(shared.handle.tolist()))


def _settle(device: torch.device) -> None:
    """Wait for the device's queued work, and let other processes have memory that is free."""
    wait_for_device(torch.cuda.synchronize, device)
    torch.cuda.empty_cache()
