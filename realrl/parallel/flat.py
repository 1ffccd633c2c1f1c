"""A rank's tensors as views of one buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class FlatTensors:
    """Tensors laid end to end in one buffer, matrices before vectors.

    The buffer's length is a multiple of `multiple_of`, so that data-parallel ranks get even shares. The
    buffer is new and zero, or `buffer`: that of an earlier object with the same shapes.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
        device: torch.device | str,
        multiple_of: int = 1,
        buffer: Tensor | None = None,
    ) -> None:
        self.spans: dict[str, tuple[int, int]] = {}
        """The elements `[start, stop)` of each tensor."""
        self.num_matrix_elements = 0
        """Elements before the first vector."""
        position = 0
        matrices_first = sorted(shapes, key=lambda name: len(shapes[name]) < 2)
        for name in matrices_first:
            shape = shapes[name]
            stop = position + math.prod(shape)
            self.spans[name] = (position, stop)
            if len(shape) > 1:
                self.num_matrix_elements = stop
            position = stop

        if buffer is None:
            num_units = -(-position // multiple_of)
            buffer = torch.zeros(
                num_units * multiple_of,
                dtype=dtype,
                device=device,
            )

        self.buffer = buffer
        self.views: dict[str, Tensor] = {}
        """Each tensor, as a view of the buffer."""
        for name, (start, stop) in self.spans.items():
            self.views[name] = buffer[start:stop].view(shapes[name])
