"""Load the compiled kernels of csrc/ and call them with the addresses of tensors."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from realrl.ops.cuda_library import CudaKernels
from realrl.ops.kernel_arguments import address, addresses, logits_job

logger = logging.getLogger(__name__)

CUDA_LIBRARY = Path(__file__).parent / "_kernels_cuda.so"
NO_CUDA_KERNELS = (
    "realrl's CUDA kernels are not built: install realrl again where nvcc is on the PATH, with REALRL_CUDA=1"
)


class Kernels(Protocol):
    """The kernels of csrc/. The caller checks that tensors are contiguous and on one device."""

    draws_nucleus: bool
    """Whether `draw` implements top-p."""

    def draw(
        self, logits: Tensor, uniforms: Tensor, inverse_temperature: float, top_p: float, tokens: Tensor
    ) -> None:
        """Fill `tokens`, int64 `[B]`, from logits `[B, V]`; without `draws_nucleus`, `top_p` is ignored."""

    def gae(
        self,
        rewards: Tensor,
        values: Tensor,
        cu_seqlens: Tensor,
        bootstrap: Tensor,
        lams: Tensor,
        gamma: float,
        advantages: Tensor,
        returns: Tensor,
    ) -> None:
        """Fill `advantages` and `returns`."""

    def move_boxes(
        self,
        table: Tensor,
        message: Tensor | None,
        num_bytes: int,
        *,
        into_message: bool,
        eta: float,
        checksum: Tensor | None,
    ) -> None:
        """Move the rows of `table` whose positions are below `num_bytes`; its columns are `Box` in boxes.h.

        Without a message, the table's message offsets are addresses.
        """

    def logits_statistics(
        self, logits: Tensor, labels: Tensor, mapping: tuple[int, int, float, float], found: Tensor
    ) -> None:
        """Fill `found [T, 4]`; `mapping` is `num_real, first, temperature` and `cap` of `LogitsJob`."""

    def logits_gradient(
        self,
        logits: Tensor,
        labels: Tensor,
        mapping: tuple[int, int, float, float],
        logsumexp: Tensor,
        entropy: Tensor,
        grad_logprobs: Tensor,
        grad_entropy: Tensor,
    ) -> None:
        """Overwrite `logits` with their gradient."""

    def gated(self, job: tuple, y: Tensor) -> None:
        """Fill `y`; `job` has the fields of `GatedJob` in csrc/gated.h."""

    def gated_backward(self, job: tuple, dy: Tensor, gradient: Tensor) -> None:
        """Fill `gradient`."""

    def rotate(self, job: tuple, y: Tensor) -> None:
        """Fill `y`; `job` has the fields of `RotaryJob` in csrc/rotary.h."""


class CpuKernels:
    """The kernels of the extension module, run with as many threads as PyTorch uses."""

    draws_nucleus = False

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def draw(self, logits, uniforms, inverse_temperature, top_p, tokens) -> None:
        """Fill `tokens`, as `Kernels.draw` does; `top_p` is ignored."""
        job = (
            logits.data_ptr(),
            logits.dtype == torch.bfloat16,
            *logits.shape,
            inverse_temperature,
            uniforms.data_ptr(),
        )
        self._module.draw(
            *job,
            tokens.data_ptr(),
            torch.get_num_threads(),
        )

    def gae(self, rewards, values, cu_seqlens, bootstrap, lams, gamma, advantages, returns) -> None:
        """Fill `advantages` and `returns`."""
        self._module.gae(
            *addresses(rewards, values, cu_seqlens, bootstrap, lams),
            len(bootstrap),
            gamma,
            *addresses(advantages, returns),
            torch.get_num_threads(),
        )

    def move_boxes(self, table, message, num_bytes, *, into_message, eta, checksum) -> None:
        """Move the rows of `table`, as `Kernels.move_boxes` does."""
        self._module.move_boxes(
            table.data_ptr(),
            len(table),
            address(message),
            num_bytes,
            into_message,
            eta,
            address(checksum),
            torch.get_num_threads(),
        )

    def first_fit_decreasing(self, lengths: Tensor, budget: int, bins: Tensor) -> None:
        """Fill `bins` from `lengths`, both int64 `[n]`."""
        self._module.first_fit_decreasing(
            lengths.data_ptr(),
            len(lengths),
            budget,
            bins.data_ptr(),
        )

    def karmarkar_karp(self, lengths: Tensor, num_bins: int, bins: Tensor) -> None:
        """Fill `bins` from `lengths`, both int64 `[n]`."""
        self._module.karmarkar_karp(
            lengths.data_ptr(),
            len(lengths),
            num_bins,
            bins.data_ptr(),
        )

    def logits_statistics(self, logits, labels, mapping, found) -> None:
        """Fill `found`, as `Kernels.logits_statistics` does."""
        job = logits_job(logits, labels, mapping)
        self._module.logits_statistics(
            job,
            found.data_ptr(),
            torch.get_num_threads(),
        )

    def logits_gradient(self, logits, labels, mapping, *rows) -> None:
        """Overwrite `logits` with their gradient; `rows` are those of `Kernels.logits_gradient`."""
        job = logits_job(logits, labels, mapping)
        self._module.logits_gradient(
            job,
            *addresses(*rows),
            torch.get_num_threads(),
        )

    def gated(self, job, y) -> None:
        """Fill `y`, as `Kernels.gated` does."""
        threads = torch.get_num_threads()
        self._module.gated(*job, y.data_ptr(), threads)

    def gated_backward(self, job, dy, gradient) -> None:
        """Fill `gradient`, as `Kernels.gated_backward` does."""
        self._module.gated_backward(
            *job,
            *addresses(dy, gradient),
            torch.get_num_threads(),
        )

    def rotate(self, job, y) -> None:
        """Fill `y`, as `Kernels.rotate` does."""
        threads = torch.get_num_threads()
        self._module.rotate(*job, y.data_ptr(), threads)

    def publish(self, counter: Tensor, value: int) -> None:
        """Set the counter and wake the processes that wait for it."""
        self._module.publish(counter.data_ptr(), value)

    def wait_at_least(self, counter: Tensor, value: int, timeout_s: float) -> bool:
        """Whether the counter has reached `value`; may return False early, for example after a signal."""
        return self._module.wait_at_least(counter.data_ptr(), value, timeout_s)


def for_device(device: torch.device) -> Kernels | None:
    """Return the kernels for a device, or None if they were not built."""
    if device.type == "cpu":
        return cpu_kernels()
    if device.type == "cuda":
        return cuda_kernels()
    return None


@cache
def cpu_module() -> ModuleType | None:
    """Return the extension module with the CPU kernels, or None if it was not built."""
    try:
        return import_module("realrl.ops._kernels")
    except ImportError as error:
        logger.warning("C++ kernels are not built (%s): their slower PyTorch twins stand in", error)
        return None


def built_cpu_module() -> ModuleType:
    """Return the extension module with the CPU kernels, which the caller knows to be built."""
    module = cpu_module()
    assert module is not None, "the CPU kernels must be built"
    return module


@cache
def cpu_kernels() -> CpuKernels | None:
    """Return the CPU kernels, or None if they were not built."""
    module = cpu_module()
    if module is None:
        return None
    return CpuKernels(module)


@cache
def cuda_kernels() -> CudaKernels | None:
    """Return the CUDA kernels, or None if they were not built; no CUDA worker starts without them."""
    if not CUDA_LIBRARY.exists():
        return None
    return CudaKernels(ctypes.CDLL(str(CUDA_LIBRARY)))
