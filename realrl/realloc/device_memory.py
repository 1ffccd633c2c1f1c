"""Memory of a CUDA device that one process allocates and another one of the device reads.

    owner                                             borrower
    allocate(n) ── handle() ──▶ 64 bytes, n ──▶ open_device_memory
        │ write, synchronize                              │ read, synchronize
        │                                                 ▼
        ◀───────────────── its answer ────────── closed with its last view
        ▼
    freed with its last view

PyTorch's allocator takes no part: what it allocates in expandable segments is shared by file descriptors,
which containers may forbid (pytorch#165685), and its counts of borrowers have names in /dev/shm, which a
process that is killed leaves behind.

Source: CUDA driver API, "Memory Management": `cuMemAlloc`, `cuIpcGetMemHandle`, `cuIpcOpenMemHandle`.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

_HANDLE_BYTES = 64
"""`CU_IPC_HANDLE_SIZE`."""
_LIBRARY = "libcuda.so.1"
_GRANULE_BYTES = 2 << 20
"""What is smaller may share a block with other memory, which would be lent along with it."""
_LAZY_ENABLE_PEER_ACCESS = 1
"""The only flag that `cuIpcOpenMemHandle` takes, and it must be given."""


class _Handle(ctypes.Structure):
    """`CUipcMemHandle`, which is passed by value."""

    _fields_ = [("reserved", ctypes.c_ubyte * _HANDLE_BYTES)]


_POINTER = ctypes.c_uint64
"""`CUdeviceptr`."""
_SIGNATURES = {
    "cuCtxGetCurrent": (ctypes.POINTER(ctypes.c_void_p),),
    "cuCtxPushCurrent_v2": (ctypes.c_void_p,),
    "cuCtxPopCurrent_v2": (ctypes.POINTER(ctypes.c_void_p),),
    "cuCtxSynchronize": (),
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
    "cuMemAlloc_v2": (ctypes.POINTER(_POINTER), ctypes.c_size_t),
    "cuMemFree_v2": (_POINTER,),
    "cuIpcGetMemHandle": (ctypes.POINTER(_Handle), _POINTER),
    "cuIpcOpenMemHandle_v2": (ctypes.POINTER(_POINTER), _Handle, ctypes.c_uint),
    "cuIpcCloseMemHandle": (_POINTER,),
}


class DeviceMemory:
    """Memory that lives until this object and every tensor of `tensor()` are gone."""

    def __init__(self, pointer: int, num_bytes: int, release: Callable[[int], None]) -> None:
        self.pointer, self.num_bytes = pointer, num_bytes
        # At a process's end the driver frees what is left, and may be gone when Python calls finalizers.
        weakref.finalize(self, _release, release, pointer, _current_context()).atexit = False

    @property
    def __cuda_array_interface__(self) -> dict:
        """How PyTorch finds the memory; a tensor of it keeps this object alive."""
        return {
            "shape": (self.num_bytes,),
            "typestr": "|u1",
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }

    def tensor(self, device: torch.device) -> Tensor:
        """The memory, uint8 `[num_bytes]`."""
        return _tensor(self, device)

    def handle(self) -> bytes:
        """What another process opens this memory with.

        Raises:
            OSError: the driver does not lend memory here.
        """
        handle = _Handle()
        _call("cuIpcGetMemHandle", ctypes.byref(handle), self.pointer)
        return bytes(handle.reserved)


def allocate(num_bytes: int, device: torch.device) -> DeviceMemory:
    """Allocate device memory whose content is undefined.

    Raises:
        OSError: there is not so much free memory.
    """
    pointer = _POINTER()
    with _on(device):
        _call("cuMemAlloc_v2", ctypes.byref(pointer), -(-num_bytes // _GRANULE_BYTES) * _GRANULE_BYTES)
        return DeviceMemory(pointer.value, num_bytes, _free)


def open_device_memory(handle: bytes, num_bytes: int, device: torch.device) -> DeviceMemory:
    """Open memory that another process has lent; it is closed with the last tensor of it.

    Raises:
        OSError: the driver does not share memory between these processes.
    """
    if len(handle) != _HANDLE_BYTES:
        raise ValueError(f"expected a handle of {_HANDLE_BYTES} bytes, got {len(handle)}")
    pointer = _POINTER()
    lent = _Handle.from_buffer_copy(handle)
    with _on(device):
        _call("cuIpcOpenMemHandle_v2", ctypes.byref(pointer), lent, _LAZY_ENABLE_PEER_ACCESS)
        return DeviceMemory(pointer.value, num_bytes, _close)


def _tensor(memory: DeviceMemory, device: torch.device) -> Tensor:
    return torch.as_tensor(memory, device=device)


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Make the device's context the current one of this thread."""
    with torch.cuda.device(device):
        torch.cuda.synchronize()  # makes the context, where this is the first use of the device
        yield


def _free(pointer: int) -> None:
    _call("cuMemFree_v2", pointer)


def _close(pointer: int) -> None:
    _call("cuIpcCloseMemHandle", pointer)


def _release(release: Callable[[int], None], pointer: int, context: int | None) -> None:
    """Free or close memory, on whichever thread its last tensor is dropped."""
    with _in_context(context):
        # No stream may use it any more, and no allocator knows which ones did.
        _call("cuCtxSynchronize")
        release(pointer)


@contextmanager
def _in_context(context: int | None) -> Iterator[None]:
    _call("cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def _current_context() -> int | None:
    context = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(context))
    return context.value


def _call(name: str, *arguments: object) -> None:
    """
    Raises:
        OSError: the driver's code and what it says of it.
    """
    driver = _driver(_LIBRARY)
    code = getattr(driver, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        what = text.value.decode() if text.value else "unknown error"
        raise OSError(code, f"{name}: {what}")


@cache
def _driver(library: str) -> ctypes.CDLL:
    """CUDA's driver, with the types of what is called."""
    driver = ctypes.CDLL(library)
    for name, arguments in _SIGNATURES.items():
        function = getattr(driver, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return driver
