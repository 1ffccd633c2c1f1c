"""The compiled kernels of csrc/, found and called by address."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

CUDA_LIBRARY = Path(__file__).parent / "_kernels_cuda.so"


class Kernels(Protocol):
    """What csrc/ computes. Tensors are contiguous, checked by the caller, and on one device."""

    def gae(
        self,
        rewards: Tensor,
        values: Tensor,
        cu_seqlens: Tensor,
        bootstrap: Tensor,
        gamma: float,
        lam: float,
        advantages: Tensor,
        returns: Tensor,
    ) -> None:
        """Fill `advantages` and `returns`."""


class CpuKernels:
    """The extension module, with as many threads as PyTorch uses."""

    def __init__(self, module) -> None:
        self._module = module

    def gae(self, rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns) -> None:
        inputs = [x.data_ptr() for x in (rewards, values, cu_seqlens, bootstrap)]
        outputs = [x.data_ptr() for x in (advantages, returns)]
        self._module.gae(*inputs, len(bootstrap), gamma, lam, *outputs, torch.get_num_threads())


class CudaKernels:
    """The library built by nvcc, on the current stream of the tensors' device."""

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, double = ctypes.c_void_p, ctypes.c_double
        self._gae = library.realrl_gae
        self._gae.argtypes = [pointer] * 4 + [ctypes.c_int64, double, double] + [pointer] * 3
        self._error_string = library.realrl_error_string
        self._error_string.restype = ctypes.c_char_p

    def gae(self, rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns) -> None:
        inputs = [x.data_ptr() for x in (rewards, values, cu_seqlens, bootstrap)]
        outputs = [x.data_ptr() for x in (advantages, returns)]
        with torch.cuda.device(rewards.device):
            stream = torch.cuda.current_stream().cuda_stream
            self._check(self._gae(*inputs, len(bootstrap), gamma, lam, *outputs, stream))

    def _check(self, code: int) -> None:
        if code != 0:
            raise RuntimeError(f"CUDA kernel failed: {self._error_string(code).decode()}")


def for_device(device: torch.device) -> Kernels | None:
    """The kernels for a device; None where they were not built."""
    if device.type == "cpu":
        return cpu_kernels()
    return cuda_kernels() if device.type == "cuda" else None


@cache
def cpu_kernels() -> CpuKernels | None:
    try:
        from realrl.ops import _kernels
    except ImportError as error:
        logger.warning("C++ kernels are not built (%s): their slower PyTorch twins stand in", error)
        return None
    return CpuKernels(_kernels)


@cache
def cuda_kernels() -> CudaKernels | None:
    if not CUDA_LIBRARY.exists():
        logger.warning("CUDA kernels are not built: their slower PyTorch twins stand in")
        return None
    return CudaKernels(ctypes.CDLL(str(CUDA_LIBRARY)))
