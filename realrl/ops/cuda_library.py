"""The kernels of csrc/cuda, called in the library that nvcc has built."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from realrl.ops.kernel_arguments import NO_WINDOW, address, addresses, logits_job

_NUMBER_TYPES = {torch.float32: 1, torch.bfloat16: 2}
"""`NumberType` of csrc/cuda/decode_cuda.cu."""

_POINTER = ctypes.c_void_p
_INT64 = ctypes.c_int64
_INT = ctypes.c_int
_FLOAT = ctypes.c_float
_DOUBLE = ctypes.c_double


def _pointers(count: int) -> list[type[ctypes._CDataType]]:
    return [_POINTER] * count


_GAE_JOB = (*_pointers(5), _INT64, _DOUBLE, *_pointers(2))
"""Argument types of advantages: inputs, the number of sequences, gamma and outputs."""
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

    def gae(self, rewards, values, cu_seqlens, bootstrap, lams, gamma, advantages, returns) -> None:
        """Fill `advantages` and `returns`."""
        self._call(
            rewards.device,
            self._gae,
            *addresses(rewards, values, cu_seqlens, bootstrap, lams),
            len(bootstrap),
            gamma,
            *addresses(advantages, returns),
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
            address(message),
            num_bytes,
            into_message,
            eta,
            address(checksum),
        )

    def logits_statistics(self, logits, labels, mapping, found) -> None:
        """Fill `found`, as `Kernels.logits_statistics` does."""
        job = logits_job(logits, labels, mapping)
        self._launch(self._logits_statistics, job, found)

    def logits_gradient(self, logits, labels, mapping, *rows) -> None:
        """Overwrite `logits` with their gradient; `rows` are those of `Kernels.logits_gradient`."""
        job = logits_job(logits, labels, mapping)
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
        tables = addresses(keys, values, page_table, lengths)
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
        self._call(device, kernel, *job, *addresses(*tensors))

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
