"""Decoding steps as CUDA graphs: a step of some hundred small kernels is launched as one.

Source: CUDA C++ Programming Guide, section "CUDA Graphs"; batch sizes as steps, as in vLLM.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[..., Tensor]
"""A function of tensors that have a row for each sequence, of which some may be None; so has its result."""
Replay = Callable[[], Tensor]
"""Does a recorded step again, on what its inputs hold now; the result is in the same memory each time."""

SIZES = sorted({base << n for base in (1, 3) for n in range(20)})
"""Numbers of rows that are recorded: at most half as many again as there are sequences."""


class RecordedStep:
    """A step, recorded for each size when that is first met; rows that are missing are `fill`.

    What the step reads beside its inputs, and where, must stay as it is.
    """

    def __init__(self, step: Step, fill: Sequence[int], record: Callable[[Step, list], Replay]) -> None:
        self._step, self._fill, self._record = step, fill, record
        self._recorded: dict[int, tuple[list[Tensor | None], Replay]] = {}

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """The step's result, for use before the next call."""
        rows = len(inputs[0])
        size = SIZES[bisect_left(SIZES, rows)]
        held = self._recorded[size][0] if size in self._recorded else _rooms(size, inputs)
        for room, given, fill in zip(held, inputs, self._fill, strict=True):
            if room is not None:
                room[:rows].copy_(given)
                room[rows:].fill_(fill)
        if size not in self._recorded:
            self._recorded[size] = held, self._record(self._step, held)
        return self._recorded[size][1]()[:rows]


def _rooms(size: int, inputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if x is None else x.new_empty(size, *x.shape[1:]) for x in inputs]


class CudaRecorder:
    """Records steps as graphs that share memory: one at a time is replayed."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step, inputs: list[Tensor | None]) -> Replay:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # a first time, in which libraries set themselves up
            step(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = step(*inputs)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay
