"""Shared memory of the processes of one host. It has no name, so a killed process leaves nothing behind.

owner                                       reader
memfd ── handle: pid, descriptor, bytes ──▶ open /proc/PID/fd/N, map, close
"""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path

import torch
from torch import Tensor

HANDLE_WORDS = 3
"""Length of the handle of a `SharedMemory`."""
_PORTABLE = 1
"""`cudaHostRegisterPortable`: the memory counts as pinned in every CUDA context."""


class SharedMemory:
    """Zeroed memory that other processes of this user can map by its `handle`, int64 `[3]`."""

    def __init__(self, num_bytes: int) -> None:
        # The descriptor stays open as long as this object lives: readers open it by its number.
        descriptor = os.memfd_create("realrl", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, descriptor)
        os.ftruncate(descriptor, num_bytes)
        self.handle = torch.tensor([os.getpid(), descriptor, num_bytes])
        self.memory = _mapped(descriptor, num_bytes)


def open_shared(handle: Tensor) -> Tensor:
    """Map the memory of another process.

    Shapes: `handle` is int64 `[3]`; returns uint8 `[num_bytes]`.
    """
    process, number, num_bytes = handle.tolist()
    descriptor = os.open(f"/proc/{process}/fd/{number}", os.O_RDWR)

    try:
        return _mapped(descriptor, num_bytes)
    finally:
        os.close(descriptor)


def pin(memory: Tensor) -> None:
    """Pin memory until this process ends, so that a device can copy it directly.

    Raises:
        RuntimeError: CUDA did not pin the memory.
    """
    runtime = torch.cuda.cudart()
    code = int(runtime.cudaHostRegister(memory.data_ptr(), memory.nbytes, _PORTABLE))
    if code:
        size = f"{memory.nbytes >> 20} MiB"
        raise RuntimeError(f"{size} of shared host memory cannot be pinned: cudaHostRegister returned {code}")


def host_id() -> str:
    """Return a name that processes have in common if they can share memory.

    Such processes have the boot of one machine, one user and one container in common.
    """
    container = os.readlink("/proc/self/ns/pid")
    return f"{machine_id()}/{container}/{os.getuid()}"


def machine_id() -> str:
    """Return a name that all processes of one machine's boot have in common, in any container."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _mapped(descriptor: int, num_bytes: int) -> Tensor:
    """Map an open file descriptor, uint8 `[num_bytes]`."""
    mapping = mmap.mmap(descriptor, num_bytes)
    return torch.frombuffer(mapping, dtype=torch.uint8)
