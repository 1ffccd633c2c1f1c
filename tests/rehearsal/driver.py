"""CUDA's driver without a device, for what `realrl.realloc.device_memory` calls of it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from realrl.engines.vllm import borrowing, lending
from realrl.realloc import device_memory
from realrl.realloc.device_memory import DeviceMemory
from tests.rehearsal.build import compile_driver

CPU = torch.device("cpu")


def build(folder: Path) -> Path:
    """The library."""
    return compile_driver(folder)


@contextmanager
def rehearsed(library: Path) -> Iterator[ctypes.CDLL]:
    """Have this process lend and open device memory by `library`; tensors of it are on the CPU."""
    with (
        mock.patch.object(device_memory, "_LIBRARY", str(library)),
        mock.patch.object(device_memory, "_tensor", _tensor),
        mock.patch.object(device_memory, "_on", lambda device: nullcontext()),
        mock.patch.object(lending, "_settle", lambda device: None),
        mock.patch.object(borrowing, "DEVICE", CPU),
    ):
        yield ctypes.CDLL(str(library))


def _tensor(memory: DeviceMemory, device: torch.device) -> Tensor:
    """As PyTorch does on CUDA, a tensor that keeps `memory` alive."""
    interface = memory.__cuda_array_interface__
    assert (interface["typestr"], interface["strides"], device) == ("|u1", None, CPU)
    start, is_read_only = interface["data"]
    assert not is_read_only
    bytes_there = (ctypes.c_uint8 * interface["shape"][0]).from_address(start)
    bytes_there.owner = memory
    return torch.frombuffer(bytes_there, dtype=torch.uint8)
