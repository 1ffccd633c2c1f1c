"""Counts what a decode loop asks of a device, where the CPU's memory stands for the device's.

Weights, the decoding's state and whatever is made from them are on the device; results of `upload` too. All
other tensors are the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from realrl.models import decode_state, decoding, generation
from realrl.models.decoding import Decoding
from realrl.models.graphs import Replay
from realrl.models.sampling import Sampler

READS = {"tolist", "item", "cpu", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__"}
"""Methods of a tensor that wait for the device, once each."""
UNRECORDABLE = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "lift_fresh")
"""Parts of the names of operators that no CUDA graph can hold."""


@dataclass
class Calls:
    """From the launch of a decoding step to that of the next."""

    uploads: int = 0
    uploaded_bytes: int = 0
    reads: int = 0
    """Times that the host waits for the device."""
    read_bytes: int = 0
    launches: int = 0
    """Operators outside of recorded steps, recorded steps and copies."""
    is_alone: bool = True
    """Whether there was no prefill, no recording and not the generation's end."""


class Device(TorchDispatchMode):
    """Tells the device's tensors from the host's, and counts operators on them."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.calls: list[Calls] = [Calls()]
        self.faults: list[str] = []
        """What a graph could not hold, in recorded steps."""
        self.is_recorded = False
        # Held, so that none of their addresses is used again.
        self._storages: dict[int, torch.UntypedStorage] = {}
        self.hold(held)

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Take tensors for the device's."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage.nbytes():
                self._storages[storage.data_ptr()] = storage

    def has(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.untyped_storage().data_ptr() in self._storages

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        is_ours = any(map(self.has, inputs))
        name = str(function)
        if self.is_recorded:
            self._check(name, inputs)
        results = function(*args, **(kwargs or {}))
        outputs = [x for x in tree_leaves(results) if isinstance(x, Tensor)]
        is_to_host = "_to_copy" in name and "device" in (kwargs or {})
        if (is_ours or self.is_recorded) and not is_to_host:
            self.hold(outputs)
        if is_ours and not self.is_recorded and not _is_view(function):
            self.calls[-1].launches += 1
        return results

    def _check(self, name: str, inputs: Sequence[Tensor]) -> None:
        if any(part in name for part in UNRECORDABLE):
            self.faults.append(name)
        # A number of the host's is passed to a kernel by value.
        if any(x.dim() and x.numel() and not self.has(x) for x in inputs):
            self.faults.append(f"{name} of a tensor on the host")


class Reads(TorchFunctionMode):
    """Counts calls that wait for the device."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name in READS and args and self._device.has(args[0]):
            self._device.calls[-1].reads += 1
            if self._device.is_recorded:
                self._device.faults.append(name)
        return function(*args, **(kwargs or {}))


@contextmanager
def counted(weights: Iterable[Tensor]) -> Iterator[Device]:
    """Generation meanwhile records its steps, and all that it asks of the device is counted."""
    device = Device(weights)

    def record(step: Replay) -> Replay:
        device.calls[-1].is_alone = False
        return lambda: _replayed(device, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoding, "is_recordable", True)
        patch.setattr(decoding, "CudaRecorder", lambda: record)
        patch.setattr(decoding, "_RECORDING_PAYS", 1)
        patch.setitem(generation.UNREAD_STEPS, "cpu", 1)
        patch.setattr(Decoding, "__init__", _held(Decoding.__init__, device))
        patch.setattr(Sampler, "__init__", _held_tokens(Sampler.__init__, device))
        patch.setattr(Decoding, "decode", _apart(Decoding.decode, device))
        patch.setattr(Decoding, "prefill", _noted(Decoding.prefill, device))
        patch.setattr(decode_state, "upload", lambda tensors, _: _uploaded(device, tensors))
        patch.setattr(decode_state.HostBlock, "__init__", _copied(decode_state.HostBlock.__init__, device))
        patch.setattr(decode_state.HostBlock, "read", _read(decode_state.HostBlock.read, device))
        with device, Reads(device):
            yield device
        device.calls[-1].is_alone = False


def _replayed(device: Device, step: Replay) -> Tensor:
    device.calls[-1].launches += 1
    device.is_recorded = True
    try:
        return step()
    finally:
        device.is_recorded = False


def _held(make: Callable, device: Device) -> Callable:
    def init(self: Decoding, *arguments) -> None:
        make(self, *arguments)
        parts = vars(self.state), vars(self.cache), vars(self.cache._pages)
        held = [value for part in parts for value in part.values()]
        rotary = self._decoder._rotary
        held += [*self._layers._hidden, rotary and rotary.frequencies]
        device.hold(x for x in held if isinstance(x, Tensor))

    return init


def _held_tokens(make: Callable, device: Device) -> Callable:
    def init(self: Sampler, *arguments) -> None:
        make(self, *arguments)
        device.hold([self._enders])

    return init


def _apart(decode: Callable, device: Device) -> Callable:
    def counted_apart(self: Decoding, *arguments):
        device.calls.append(Calls())
        return decode(self, *arguments)

    return counted_apart


def _noted(prefill: Callable, device: Device) -> Callable:
    def noted(self: Decoding, *arguments):
        device.calls[-1].is_alone = False
        return prefill(self, *arguments)

    return noted


def _uploaded(device: Device, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies that are on the device."""
    assert not any(map(device.has, tensors)), "what is uploaded is on the host"
    copies = [tensor.clone() for tensor in tensors]
    device.hold(copies)
    calls = device.calls[-1]
    calls.uploads += 1
    calls.launches += 1
    calls.uploaded_bytes += sum(tensor.nbytes for tensor in tensors)
    return copies


def _copied(make: Callable, device: Device) -> Callable:
    def init(self, block: Tensor) -> None:
        make(self, block)
        device.calls[-1].read_bytes += block.nbytes

    return init


def _read(read: Callable, device: Device) -> Callable:
    """A wait for the event behind the copy."""

    def counted_read(self):
        assert not device.has(self._block), "the block has been copied to the host"
        device.calls[-1].reads += 1
        return read(self)

    return counted_read


def _is_view(function) -> bool:
    return function.is_view or function.namespace == "prim"
