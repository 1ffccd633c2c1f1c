"""CUDA memory that one process allocates and another process on the same device reads.

    owner                                             borrower
    allocate(n) ── handle() ──▶ 64 bytes, n ──▶ open_device_memory
        │ write, synchronize                              │ read, synchronize
        │                                                 ▼
        ◀───────────────── its answer ────────── closed with its last view
        ▼
    freed with its last view

PyTorch's allocator is not used. It shares expandable segments by file descriptors, which containers may
forbid (pytorch#165685). It counts borrowers in files in /dev/shm, which a killed process leaves behind.

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

from realrl.base.waiting import wait_for_device

_HANDLE_BYTES = 64
"""`CU_IPC_HANDLE_SIZE`."""
_LIBRARY = "libcuda.so.1"
_GRANULE_BYTES = 2 << 20
"""Allocations are multiples of this size. A smaller one may share a block with other memory, which would
be lent with it."""
_LAZY_ENABLE_PEER_ACCESS = 1
"""The only flag of `cuIpcOpenMemHandle`, which requires it."""


class _Handle(ctypes.Structure):
    """`CUipcMemHandle`; the driver takes it by value."""

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
"""Argument types of each function of the driver that is called here."""


class DeviceMemory:
    """Device memory that is released with this object and the last tensor from `tensor()`."""

    def __init__(self, pointer: int, num_bytes: int, release: Callable[[int], None]) -> None:
        self.pointer = pointer
        self.num_bytes = num_bytes
        finalizer = weakref.finalize(
            self,
            _release,
            release,
            pointer,
            _current_context(),
        )
        # At exit the driver frees all memory itself, and may be unloaded when Python calls finalizers.
        finalizer.atexit = False

    @property
    def __cuda_array_interface__(self) -> dict:
        """Description of the memory for PyTorch, whose tensors then keep this object alive."""
        return {
            "shape": (self.num_bytes,),
            "typestr": "|u1",
            "data": (self.pointer, False),
            "strides": None,
            "version": 3,
        }

    def tensor(self, device: torch.device) -> Tensor:
        """Return the memory as a tensor, uint8 `[num_bytes]`."""
        return _tensor(self, device)

    def handle(self) -> bytes:
        """Return the handle by which another process can open this memory.

        Raises:
            OSError: the driver cannot share memory here.
        """
        handle = _Handle()
        _call("cuIpcGetMemHandle", ctypes.byref(handle), self.pointer)
        return bytes(handle.reserved)


def allocate(num_bytes: int, device: torch.device) -> DeviceMemory:
    """Allocate device memory whose content is undefined.

    Raises:
        OSError: the device has too little free memory.
    """
    pointer = _POINTER()
    granted_bytes = -(-num_bytes // _GRANULE_BYTES) * _GRANULE_BYTES

    with _on(device):
        _call("cuMemAlloc_v2", ctypes.byref(pointer), granted_bytes)
        return DeviceMemory(pointer.value, num_bytes, _free)


def open_device_memory(handle: bytes, num_bytes: int, device: torch.device) -> DeviceMemory:
    """Open the memory of another process; it is closed with its last tensor.

    Raises:
        OSError: the driver does not share memory between these processes.
        ValueError: the handle has a wrong length.
    """
    if len(handle) != _HANDLE_BYTES:
        raise ValueError(f"expected a handle of {_HANDLE_BYTES} bytes, got {len(handle)}")
    pointer = _POINTER()
    lent = _Handle.from_buffer_copy(handle)
    with _on(device):
        _call(
            "cuIpcOpenMemHandle_v2",
            ctypes.byref(pointer),
            lent,
            _LAZY_ENABLE_PEER_ACCESS,
        )
        return DeviceMemory(pointer.value, num_bytes, _close)


def _tensor(memory: DeviceMemory, device: torch.device) -> Tensor:
    return torch.as_tensor(memory, device=device)


@contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Make the device's context current in this thread."""
    with torch.cuda.device(device):
        # The first use of a device creates its context.
        wait_for_device(torch.cuda.synchronize)
        yield


def _free(pointer: int) -> None:
    _call("cuMemFree_v2", pointer)


def _close(pointer: int) -> None:
    _call("cuIpcCloseMemHandle", pointer)


def _release(release: Callable[[int], None], pointer: int, context: int | None) -> None:
    """Free or close memory, in whichever thread its last tensor is dropped."""
    with _in_context(context):
        # Work on any stream may still use the memory, and no allocator knows which streams do.
        _call("cuCtxSynchronize")
        release(pointer)


@contextmanager
def _in_context(context: int | None) -> Iterator[None]:
    """Make a context current in this thread."""
    _call("cuCtxPushCurrent_v2", context)
    try:
        yield
    finally:
        _call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))


def _current_context() -> int | None:
    """Return the context that is current in this thread."""
    context = ctypes.c_void_p()
    _call("cuCtxGetCurrent", ctypes.byref(context))
    return context.value


def _call(name: str, *arguments: object) -> None:
    """Call a function of the driver.

    Raises:
        OSError: the call failed; holds the driver's code and description.
    """
    driver = _driver(_LIBRARY)
    code = getattr(driver, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        description = text.value
        what = description.decode() if description else "unknown error"
        raise OSError(code, f"{name}: {what}")


@cache
def _driver(library: str) -> ctypes.CDLL:
    """Return CUDA's driver, with the argument types of the functions that are called."""
    driver = ctypes.CDLL(library)
    for name, arguments in _SIGNATURES.items():
        function = getattr(driver, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int

    return driver
