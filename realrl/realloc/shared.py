"""Memory that processes of one host share: without a name, so that nothing is left behind."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path

import torch
from torch import Tensor

_PORTABLE = 1
"""`cudaHostRegisterPortable`."""


class SharedMemory:
    """A zeroed piece of memory that other processes of this user can map by `handle`."""

    def __init__(self, num_bytes: int) -> None:
        descriptor = os.memfd_create("realrl", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, num_bytes)
        self.handle = torch.tensor([os.getpid(), descriptor, num_bytes])
        self.memory = _mapped(descriptor, num_bytes)


def open_shared(handle: Tensor) -> Tensor:
    """The memory, uint8, that another process named by its `handle`, int64 `[3]`."""
    process, number, num_bytes = handle.tolist()
    descriptor = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR)
    try:
        return _mapped(descriptor, num_bytes)
    finally:
        os.close(descriptor)


def pin(memory: Tensor) -> None:
    """Pin memory for the rest of this process's life, so that a device copies it directly.

    Raises:
        RuntimeError: CUDA did not pin it.
    """
    code = int(torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.nbytes, _PORTABLE))
    if code:
        size = f"{memory.nbytes >> 20} MiB"
        raise RuntimeError(f"{size} of shared host memory cannot be pinned: cudaHostRegister returned {code}")


def host_id() -> str:
    """Equal in two processes that can share memory: one boot of one machine, one user, one container."""
    return f"{machine_id()}/{os.readlink('/proc/self/ns/pid')}/{os.getuid()}"


def machine_id() -> str:
    """Equal in all processes of one boot of one machine, whatever containers they are in."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _mapped(descriptor: int, num_bytes: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(descriptor, num_bytes), dtype=torch.uint8)
