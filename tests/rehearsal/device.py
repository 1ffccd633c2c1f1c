"""The CUDA kernels' wrapper over the library that runs them on the CPU, and the memory that they may use."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from realrl.ops.cuda_library import CudaKernels

FORWARDS, BACKWARDS = 0, 1
"""Thread orders; any larger one is the seed of a random order."""
ORDERS = (FORWARDS, BACKWARDS, 2, 3)

STREAM = 0x57EA0
"""No real stream: the library compares what arrives with it."""


class Library:
    """The rehearsal's library and the controls that its real counterpart lacks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cdll = ctypes.CDLL(str(path))
        self.cdll.rehearsal_start.argtypes = [ctypes.c_uint64, ctypes.c_int, ctypes.c_void_p]
        self.cdll.rehearsal_add_tensor.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self._kernel = self.cdll.rehearsal_kernel
        self._kernel.argtypes = [ctypes.c_int64, ctypes.POINTER(ctypes.c_int64)]
        self._kernel.restype = ctypes.c_char_p

    def start(self, order: int, processors: int) -> None:
        """Run what follows in a thread order, as on a device of so many processors."""
        self.cdll.rehearsal_start(order, processors, STREAM)

    def launches(self) -> dict[str, int]:
        """Launches of each instance of each kernel since the library was loaded."""
        found, count = {}, ctypes.c_int64()
        while name := self._kernel(len(found), count):
            found[name.decode()] = count.value
        return found

    def with_source_lines(self, message: str) -> str:
        """A failure's message with lines of csrc/ in the place of an address."""
        return re.sub(r"code \+(0x[0-9a-f]+)", lambda match: self._lines_of(int(match[1], 16)), message)

    def _lines_of(self, return_address: int) -> str:
        """Where the call before an address was made, the innermost function first."""
        command = ["addr2line", "-i", "-e", str(self.path), hex(return_address - 1)]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        lines = ["csrc/" + frame.rpartition("/csrc/")[2] for frame in found if "/csrc/" in frame]
        return " in ".join(lines) or hex(return_address)


class RehearsedKernels(CudaKernels):
    """The product's wrapper, but for the stream: tensors are on the CPU here."""

    def __init__(self, library: Library) -> None:
        super().__init__(library.cdll)
        self._library = library

    def _call(self, device: torch.device, function, *arguments) -> None:
        try:
            self._check(function(*arguments, STREAM))
        except RuntimeError as error:
            raise RuntimeError(self._library.with_source_lines(str(error))) from None


class DeviceMemory(TorchDispatchMode):
    """While it is active, each operator's results are memory that kernels may access, to the byte.

    Nothing is freed meanwhile, so that no address is used again.
    """

    def __init__(self, library: Library) -> None:
        super().__init__()
        self._library = library
        self._storages = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._add(result.untyped_storage())
        return results

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage.data_ptr() not in self._storages:
            self._storages[storage.data_ptr()] = storage
            self._library.cdll.rehearsal_add_tensor(storage.data_ptr(), storage.nbytes())

    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
        self._library.cdll.rehearsal_forget_tensors()
        self._storages.clear()
