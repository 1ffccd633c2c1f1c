"""The table of rows that tells the kernels of boxes what to move.

The kernels see a box as rows of contiguous elements. A row of the table describes such rows that lie at equal
distances, in the tensor and in the message. Its columns are those of `Box` in csrc/boxes.h.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNMENT = 64
"""Alignment, in bytes, of every region's offset in a message."""

KINDS = {torch.float32: 1, torch.bfloat16: 2, torch.float16: 3, torch.float64: 4}
"""Codes of the dtypes whose elements the kernels can convert; elements of any other dtype are only copied."""
_COLUMNS = 8
_MESSAGE_KIND_SHIFT = 32
"""The last column holds two 32-bit codes: the tensor's, and the message's above it."""


class Side(NamedTuple):
    """The memory of one end of a copy: the tensor or the message."""

    address: int
    strides: Sequence[int]
    dtype: torch.dtype


def side_of(tensor: Tensor) -> Side:
    """Return the memory of a tensor."""
    return Side(tensor.data_ptr(), tensor.stride(), tensor.dtype)


class Rows:
    """A table of rows, while it is built."""

    def __init__(self) -> None:
        self._table = array("q")

    def add(self, position: int, shape: Sequence[int], tensor: Side, message: Side) -> None:
        """Add the rows that move the elements of a box: one for each two innermost dimensions.

        `position` is the box's first byte in the order in which the kernels divide their work.
        """
        kind = KINDS.get(tensor.dtype, 0)
        message_kind = KINDS.get(message.dtype, 0)
        size = tensor.dtype.itemsize
        message_size = message.dtype.itemsize
        innermost, second, *outer = _dims(shape, tensor.strides, message.strides)
        num_elements = innermost[0]
        num_rows, stride, message_stride = second
        num_bytes = num_rows * num_elements * message_size
        # Elements that are only copied are counted in bytes.
        row_elements = num_elements if kind else num_elements * size
        for offset, message_offset in _offsets(outer):
            row = (
                position,
                num_rows,
                row_elements,
                tensor.address + offset * size,
                stride * size,
                message.address + message_offset * message_size,
                message_stride * message_size,
                kind | message_kind << _MESSAGE_KIND_SHIFT,
            )
            self._table.extend(row)
            position += num_bytes

    def as_tensor(self) -> Tensor:
        """Return the table: int64 `[rows, 8]` on the host."""
        if self._table:
            numbers = torch.frombuffer(self._table, dtype=torch.int64)
        else:
            # `frombuffer` refuses an empty buffer.
            numbers = torch.empty(0, dtype=torch.int64)
        return numbers.view(-1, _COLUMNS)


def _dims(
    shape: Sequence[int], strides: Sequence[int], message_strides: Sequence[int]
) -> list[tuple[int, int, int]]:
    """Merge dimensions while the element order stays the same.

    Returns at least two dimensions `(length, stride, message stride)`, the innermost first; the innermost is
    dense.
    """
    dims = [(1, 1, 1)]
    for axis in reversed(range(len(shape))):
        length = shape[axis]
        if length == 1:
            continue
        stride = strides[axis]
        message_stride = message_strides[axis]
        inner, inner_stride, inner_message_stride = dims[-1]
        continues_tensor = stride == inner * inner_stride
        continues_message = message_stride == inner * inner_message_stride
        if continues_tensor and continues_message:
            dims[-1] = (inner * length, inner_stride, inner_message_stride)
        else:
            dims.append((length, stride, message_stride))

    if len(dims) == 1:
        dims.append((1, 0, 0))
    return dims


def _offsets(outer: Sequence[tuple[int, int, int]]) -> Iterator[tuple[int, int]]:
    """Yield both offsets of each index over the outer dimensions, the first of which varies fastest."""
    slowest_first = outer[::-1]
    ranges = [range(length) for length, _, _ in slowest_first]
    for index in product(*ranges):
        offset = 0
        message_offset = 0
        for step, (_, stride, message_stride) in zip(index, slowest_first):
            offset += step * stride
            message_offset += step * message_stride
        yield offset, message_offset


def row_major(shape: Sequence[int]) -> list[int]:
    """Return the strides of a contiguous tensor of this shape."""
    strides = []
    stride = 1
    for length in reversed(shape):
        strides.append(stride)
        stride *= length
    return strides[::-1]


def aligned(num_bytes: int) -> int:
    """Round a number of bytes up to the alignment."""
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
