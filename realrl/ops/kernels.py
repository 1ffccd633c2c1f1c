"""Load the compiled kernels of csrc/ and call them with the addresses of tensors."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
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

    def __init__(self, module) -> None:
        self._module = module

    def draw(self, logits, uniforms, inverse_temperature, top_p, tokens) -> None:
        is_bf16 = logits.dtype == torch.bfloat16
        source = logits.data_ptr(), is_bf16, *logits.shape
        job = *source, inverse_temperature, uniforms.data_ptr()
        self._module.draw(*job, tokens.data_ptr(), torch.get_num_threads())

    def gae(self, rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns) -> None:
        inputs = [x.data_ptr() for x in (rewards, values, cu_seqlens, bootstrap)]
        outputs = [x.data_ptr() for x in (advantages, returns)]
        threads = torch.get_num_threads()
        self._module.gae(*inputs, len(bootstrap), gamma, lam, *outputs, threads)

    def move_boxes(self, table, message, num_bytes, *, into_message, eta, checksum) -> None:
        rows = table.data_ptr(), len(table)
        job = *rows, _address(message), num_bytes, into_message, eta
        self._module.move_boxes(*job, _address(checksum), torch.get_num_threads())

    def first_fit_decreasing(self, lengths: Tensor, budget: int, bins: Tensor) -> None:
        """Fill `bins` from `lengths`, both int64 `[n]`."""
        self._module.first_fit_decreasing(lengths.data_ptr(), len(lengths), budget, bins.data_ptr())

    def karmarkar_karp(self, lengths: Tensor, num_bins: int, bins: Tensor) -> None:
        """Fill `bins` from `lengths`, both int64 `[n]`."""
        self._module.karmarkar_karp(lengths.data_ptr(), len(lengths), num_bins, bins.data_ptr())

    def logits_statistics(self, logits, labels, mapping, found) -> None:
        job = _logits_job(logits, labels, mapping)
        self._module.logits_statistics(job, found.data_ptr(), torch.get_num_threads())

    def logits_gradient(self, logits, labels, mapping, *rows) -> None:
        job = _logits_job(logits, labels, mapping)
        addresses = [x.data_ptr() for x in rows]
        self._module.logits_gradient(job, *addresses, torch.get_num_threads())

    def gated(self, job, y) -> None:
        self._module.gated(*job, y.data_ptr(), torch.get_num_threads())

    def gated_backward(self, job, dy, gradient) -> None:
        self._module.gated_backward(*job, dy.data_ptr(), gradient.data_ptr(), torch.get_num_threads())

    def rotate(self, job, y) -> None:
        self._module.rotate(*job, y.data_ptr(), torch.get_num_threads())

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


def _pointers(count: int) -> list[type]:
    return [_POINTER] * count


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
        # A stream is the last argument of every kernel.
        self._gae = library.realrl_gae
        self._gae.argtypes = [*_pointers(4), _INT64, _DOUBLE, _DOUBLE, *_pointers(2), _POINTER]
        self._move_boxes = library.realrl_move_boxes
        self._move_boxes.argtypes = [_POINTER, _INT64, _POINTER, _INT64, _INT, _DOUBLE, _POINTER, _POINTER]
        self._logits_statistics = library.realrl_logits_statistics
        self._logits_statistics.argtypes = [*_LOGITS_JOB, _POINTER, _POINTER]
        self._logits_gradient = library.realrl_logits_gradient
        self._logits_gradient.argtypes = [*_LOGITS_JOB, *_pointers(4), _POINTER]
        self._gated = library.realrl_gated
        self._gated.argtypes = [*_GATED_JOB, _POINTER, _POINTER]
        self._gated_backward = library.realrl_gated_backward
        self._gated_backward.argtypes = [*_GATED_JOB, _POINTER, _POINTER, _POINTER]
        self._rotate = library.realrl_rotate
        self._rotate.argtypes = [*_ROTARY_JOB, _POINTER, _POINTER]
        self._attend_pages = library.realrl_attend_pages
        self._attend_pages.argtypes = [*_PAGES_JOB, *_pointers(2), _POINTER]
        self._scratch_floats = library.realrl_attend_pages_scratch
        self._scratch_floats.argtypes = [_INT64] * 6
        self._scratch_floats.restype = ctypes.c_int64
        self._draw = library.realrl_draw
        self._draw.argtypes = [*_DRAW_JOB, _POINTER, _POINTER]
        self._error_string = library.realrl_error_string
        self._error_string.restype = ctypes.c_char_p

    def gae(self, rewards, values, cu_seqlens, bootstrap, gamma, lam, advantages, returns) -> None:
        inputs = [x.data_ptr() for x in (rewards, values, cu_seqlens, bootstrap)]
        outputs = [x.data_ptr() for x in (advantages, returns)]
        self._call(rewards.device, self._gae, *inputs, len(bootstrap), gamma, lam, *outputs)

    def move_boxes(self, table, message, num_bytes, *, into_message, eta, checksum) -> None:
        rows = table.data_ptr(), len(table)
        job = *rows, _address(message), num_bytes, into_message, eta
        # The table of a checksum alone is empty and may be on any device.
        device = (table if message is None else message).device
        self._call(device, self._move_boxes, *job, _address(checksum))

    def logits_statistics(self, logits, labels, mapping, found) -> None:
        job = _logits_job(logits, labels, mapping)
        self._launch(self._logits_statistics, job, found)

    def logits_gradient(self, logits, labels, mapping, *rows) -> None:
        job = _logits_job(logits, labels, mapping)
        self._launch(self._logits_gradient, job, *rows)

    def gated(self, job, y) -> None:
        self._launch(self._gated, job, y)

    def gated_backward(self, job, dy, gradient) -> None:
        self._launch(self._gated_backward, job, dy, gradient)

    def rotate(self, job, y) -> None:
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
        count = self._scratch_floats(batch, num_heads, head_dim, page_tokens, table_width, window)
        # A graph's memory pool holds one such buffer, because layers run one after another.
        scratch = torch.empty(count, dtype=torch.float32, device=q.device)
        queries = q.data_ptr(), q.stride(0)
        tables = keys.data_ptr(), values.data_ptr(), page_table.data_ptr(), lengths.data_ptr()
        sizes = batch, num_heads, num_kv_heads, head_dim, page_tokens, table_width
        numbers = scale, softcap or 0.0, window, _NUMBER_TYPES[q.dtype]
        job = *queries, *tables, *sizes, *numbers
        self._launch(self._attend_pages, job, scratch, out)

    def draw(self, logits, uniforms, inverse_temperature, top_p, tokens) -> None:
        is_bf16 = logits.dtype == torch.bfloat16
        source = logits.data_ptr(), is_bf16, *logits.shape
        job = *source, inverse_temperature, uniforms.data_ptr(), top_p
        self._launch(self._draw, job, tokens)

    def _launch(self, kernel, job: tuple, *tensors: Tensor) -> None:
        addresses = [x.data_ptr() for x in tensors]
        self._call(tensors[0].device, kernel, *job, *addresses)

    def _call(self, device: torch.device, function, *arguments) -> None:
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


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _logits_job(logits: Tensor, labels: Tensor, mapping: tuple) -> tuple:
    """The fields of `LogitsJob` in csrc/logits.h."""
    is_bf16 = logits.dtype == torch.bfloat16
    return logits.data_ptr(), labels.data_ptr(), *logits.shape, *mapping, is_bf16


def for_device(device: torch.device) -> Kernels | None:
    """Return the kernels for a device, or None if they were not built."""
    if device.type == "cpu":
        return cpu_kernels()
    return cuda_kernels() if device.type == "cuda" else None


@cache
def cpu_module() -> ModuleType | None:
    """Return the extension module with the CPU kernels, or None if it was not built."""
    try:
        from realrl.ops import _kernels
    except ImportError as error:
        logger.warning("C++ kernels are not built (%s): their slower PyTorch twins stand in", error)
        return None
    return _kernels


@cache
def cpu_kernels() -> CpuKernels | None:
    """Return the CPU kernels, or None if they were not built."""
    module = cpu_module()
    return module and CpuKernels(module)


@cache
def cuda_kernels() -> CudaKernels | None:
    """Return the CUDA kernels, or None if they were not built; no CUDA worker starts without them."""
    if not CUDA_LIBRARY.exists():
        return None
    return CudaKernels(ctypes.CDLL(str(CUDA_LIBRARY)))
