"""Load the compiled kernels of csrc/ and call them with the addresses of tensors."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

CUDA_LIBRARY = Path(__file__).parent / "_kernels_cuda.so"
NO_CUDA_KERNELS = (
    "realrl's CUDA kernels are not built: install realrl again where nvcc is on the PATH, with REALRL_CUDA=1"
)
_NUMBER_TYPES = {torch.float32: 1, torch.bfloat16: 2}
"""`NumberType` of csrc/cuda/decode_cuda.cu."""
NO_WINDOW = 1 << 40
"""Window passed to kernels for layers without one: more tokens than any sequence has."""


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
        gamma: float,
        lam: float,
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

    def gae(self, rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns) -> None:
        """Fill `advantages` and `returns`."""
        self._module.gae(
            *_addresses(rewards, values, cu_seqlens, bootstrap),
            len(bootstrap),
            gamma,
            lam,
            *_addresses(advantages, returns),
            torch.get_num_threads(),
        )

    def move_boxes(self, table, message, num_bytes, *, into_message, eta, checksum) -> None:
        """Move the rows of `table`, as `Kernels.move_boxes` does."""
        self._module.move_boxes(
            table.data_ptr(),
            len(table),
            _address(message),
            num_bytes,
            into_message,
            eta,
            _address(checksum),
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
        job = _logits_job(logits, labels, mapping)
        self._module.logits_statistics(
            job,
            found.data_ptr(),
            torch.get_num_threads(),
        )

    def logits_gradient(self, logits, labels, mapping, *rows) -> None:
        """Overwrite `logits` with their gradient; `rows` are those of `Kernels.logits_gradient`."""
        job = _logits_job(logits, labels, mapping)
        self._module.logits_gradient(
            job,
            *_addresses(*rows),
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
            *_addresses(dy, gradient),
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


_POINTER = ctypes.c_void_p
_INT64 = ctypes.c_int64
_INT = ctypes.c_int
_FLOAT = ctypes.c_float
_DOUBLE = ctypes.c_double


def _pointers(count: int) -> list[type[ctypes._CDataType]]:
    return [_POINTER] * count


_GAE_JOB = (*_pointers(4), _INT64, _DOUBLE, _DOUBLE, *_pointers(2))
"""Argument types of advantages: inputs, their number, gamma, lambda and outputs."""
_BOXES_JOB = (_POINTER, _INT64, _POINTER, _INT64, _INT, _DOUBLE, _POINTER)
"""Argument types of a move of boxes: table, message, direction, eta and checksum."""
_LOGITS_JOB = (
    *_pointers(2),
    *(_INT64, _INT64, _INT64, _INT64),
    *(_FLOAT, _FLOAT),
    _INT,
)
"""Argument types for the fields of `LogitsJob`."""
_GATED_JOB = (_POINTER, _INT64, _INT64, _INT, _INT)
"""Argument types for the fields of `GatedJob`."""
_ROTARY_JOB = (
    *_pointers(3),
    *(_INT64, _INT64, _INT64, _INT64),
    *(_INT, _INT),
)
"""Argument types for the fields of `RotaryJob`."""
_PAGES_JOB = (
    *(_POINTER, _INT64),
    *_pointers(4),
    *(_INT64, _INT64, _INT64, _INT64, _INT64, _INT64),
    *(_FLOAT, _FLOAT, _INT64, _INT),
)
"""Argument types of attention over pages: queries, tables, sizes and the attention rule."""
_DRAW_JOB = (_POINTER, _INT, _INT64, _INT64, _FLOAT, _POINTER, _DOUBLE)
"""Argument types of a draw: logits, their sizes, the temperature, the random numbers and top-p."""


class CudaKernels:
    """The kernels of the library built by nvcc, run on the current stream of the tensors' device."""

    draws_nucleus = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self._gae = _kernel(library.realrl_gae, *_GAE_JOB)
        self._move_boxes = _kernel(library.realrl_move_boxes, *_BOXES_JOB)
        self._logits_statistics = _kernel(library.realrl_logits_statistics, *_LOGITS_JOB, _POINTER)
        self._logits_gradient = _kernel(
            library.realrl_logits_gradient,
            *_LOGITS_JOB,
            *_pointers(4),
        )
        self._gated = _kernel(library.realrl_gated, *_GATED_JOB, _POINTER)
        self._gated_backward = _kernel(
            library.realrl_gated_backward,
            *_GATED_JOB,
            *_pointers(2),
        )
        self._rotate = _kernel(library.realrl_rotate, *_ROTARY_JOB, _POINTER)
        self._attend_pages = _kernel(
            library.realrl_attend_pages,
            *_PAGES_JOB,
            *_pointers(2),
        )
        self._draw = _kernel(library.realrl_draw, *_DRAW_JOB, _POINTER)
        self._scratch_floats = library.realrl_attend_pages_scratch
        self._scratch_floats.argtypes = [_INT64] * 6
        self._scratch_floats.restype = _INT64
        self._error_string = library.realrl_error_string
        self._error_string.restype = ctypes.c_char_p

    def gae(self, rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns) -> None:
        """Fill `advantages` and `returns`."""
        self._call(
            rewards.device,
            self._gae,
            *_addresses(rewards, values, cu_seqlens, bootstrap),
            len(bootstrap),
            gamma,
            lam,
            *_addresses(advantages, returns),
        )

    def move_boxes(self, table, message, num_bytes, *, into_message, eta, checksum) -> None:
        """Move the rows of `table`, as `Kernels.move_boxes` does."""
        # The table of a checksum alone is empty and may be on any device.
        device = (table if message is None else message).device
        self._call(
            device,
            self._move_boxes,
            table.data_ptr(),
            len(table),
            _address(message),
            num_bytes,
            into_message,
            eta,
            _address(checksum),
        )

    def logits_statistics(self, logits, labels, mapping, found) -> None:
        """Fill `found`, as `Kernels.logits_statistics` does."""
        job = _logits_job(logits, labels, mapping)
        self._launch(self._logits_statistics, job, found)

    def logits_gradient(self, logits, labels, mapping, *rows) -> None:
        """Overwrite `logits` with their gradient; `rows` are those of `Kernels.logits_gradient`."""
        job = _logits_job(logits, labels, mapping)
        self._launch(self._logits_gradient, job, *rows)

    def gated(self, job, y) -> None:
        """Fill `y`, as `Kernels.gated` does."""
        self._launch(self._gated, job, y)

    def gated_backward(self, job, dy, gradient) -> None:
        """Fill `gradient`, as `Kernels.gated_backward` does."""
        self._launch(self._gated_backward, job, dy, gradient)

    def rotate(self, job, y) -> None:
        """Fill `y`, as `Kernels.rotate` does."""
        self._launch(self._rotate, job, y)

    def attend_pages(
        self,
        q: Tensor,
        pages: Tensor,
        page_table: Tensor,
        lengths: Tensor,
        rule: tuple[float, int | None, float | None],
        out: Tensor,
    ) -> None:
        """Fill `out` with the attention of `q` to the first `lengths` tokens of each row's pages.

        `rule` has the fields of `AttentionRule`.

        Shapes: q and out `[B, Q, D]`; pages `[2, pages, page_tokens, K, D]`; page_table int32 `[B, P]`;
            lengths int64 `[B]`. The heads of a sequence of q are contiguous and aligned to 16 bytes.
        """
        scale, window, softcap = rule
        batch, num_heads, head_dim = q.shape
        keys, values = pages
        page_tokens, num_kv_heads = pages.shape[2:4]
        table_width = page_table.shape[1]
        window = window or NO_WINDOW
        num_floats = self._scratch_floats(
            batch,
            num_heads,
            head_dim,
            page_tokens,
            table_width,
            window,
        )
        # A graph's memory pool holds one such buffer, because layers run one after another.
        scratch = torch.empty(num_floats, dtype=torch.float32, device=q.device)
        queries = q.data_ptr(), q.stride(0)
        tables = _addresses(keys, values, page_table, lengths)
        sizes = batch, num_heads, num_kv_heads, head_dim, page_tokens, table_width
        numbers = scale, softcap or 0.0, window, _NUMBER_TYPES[q.dtype]
        job = *queries, *tables, *sizes, *numbers
        self._launch(self._attend_pages, job, scratch, out)

    def draw(self, logits, uniforms, inverse_temperature, top_p, tokens) -> None:
        """Fill `tokens`, as `Kernels.draw` does."""
        job = (
            logits.data_ptr(),
            logits.dtype == torch.bfloat16,
            *logits.shape,
            inverse_temperature,
            uniforms.data_ptr(),
            top_p,
        )
        self._launch(self._draw, job, tokens)

    def _launch(self, kernel: Callable[..., int], job: tuple, *tensors: Tensor) -> None:
        """Call a kernel with the numbers of a job and the addresses of tensors."""
        device = tensors[0].device
        self._call(device, kernel, *job, *_addresses(*tensors))

    def _call(self, device: torch.device, function: Callable[..., int], *arguments) -> None:
        """Call a function of the library on the device's current stream.

        Raises:
            RuntimeError: the launch failed.
        """
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream()
            code = function(*arguments, stream.cuda_stream)
            self._check(code)

    def _check(self, code: int) -> None:
        if code != 0:
            reason = self._error_string(code).decode()
            raise RuntimeError(f"CUDA kernel failed: {reason}")


def _kernel(function: ctypes._NamedFuncPointer, *arguments: type[ctypes._CDataType]) -> Callable[..., int]:
    """Declare the types of a kernel's arguments; the last argument of every kernel is a stream."""
    function.argtypes = [*arguments, _POINTER]
    return function


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _addresses(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]


def _logits_job(logits: Tensor, labels: Tensor, mapping: tuple) -> tuple:
    """Return the fields of `LogitsJob` in csrc/logits.h."""
    is_bf16 = logits.dtype == torch.bfloat16
    return (
        logits.data_ptr(),
        labels.data_ptr(),
        *logits.shape,
        *mapping,
        is_bf16,
    )


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
