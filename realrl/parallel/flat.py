"""A rank's tensors as views of one buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


class FlatTensors:
    """Tensors laid end to end in one buffer, matrices before vectors.

    The buffer's length is a multiple of `multiple_of`, so that data-parallel ranks get even shares. It is
    zeros, or `buffer`, that of an earlier object of the same shapes.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtype: torch.dtype,
        device: torch.device | str,
        multiple_of: int = 1,
        buffer: Tensor | None = None,
    ) -> None:
        names = sorted(shapes, key=lambda name: len(shapes[name]) < 2)
        self.spans: dict[str, tuple[int, int]] = {}
        position = 0
        for name in names:
            self.spans[name] = (position, position + math.prod(shapes[name]))
            position = self.spans[name][1]
        self.num_matrix_elements = max((self.spans[n][1] for n in names if len(shapes[n]) > 1), default=0)
        if buffer is None:
            buffer = torch.zeros(-(-position // multiple_of) * multiple_of, dtype=dtype, device=device)
        self.buffer = buffer
        self.views: dict[str, Tensor] = {
            name: self.buffer[start:stop].view(shapes[name]) for name, (start, stop) in self.spans.items()
        }
