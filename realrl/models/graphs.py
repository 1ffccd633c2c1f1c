"""Decoding steps as CUDA graphs: a step of some hundred small kernels is launched as one.

Source: CUDA C++ Programming Guide, section "CUDA Graphs"; batch sizes as steps, as in vLLM.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

Replay = Callable[[], Tensor]
"""Does a recorded step again, on what its inputs hold now; the result is in the same memory each time."""
Record = Callable[[Replay], Replay]
"""From a step, its replay. The step may be run, any number of times."""

_SIZES = sorted({base << n for base in (1, 3) for n in range(20)})


def size_of(num_rows: int) -> int:
    """How many rows are recorded for so many sequences: at most half as many again."""
    return _SIZES[bisect_left(_SIZES, num_rows)]


class RecordedStep:
    """A step of a number of rows, recorded for each number when that is first met.

    What the step reads and writes, and where, must stay as it is.
    """

    def __init__(self, step: Callable[[int], Tensor], record: Record) -> None:
        self._step, self._record = step, record
        self._replays: dict[int, Replay] = {}

    def prepare(self, size: int) -> None:
        """Record the step for `size` rows."""
        self._replays[size] = self._record(partial(self._step, size))

    def __call__(self, size: int) -> Tensor:
        """The step's result, for use before the next call."""
        return self._replays[size]()


class CudaRecorder:
    """Records steps as graphs that share memory: one at a time is replayed.

    Its graphs' memory is free when all of them are; then it records no more.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()
        # The graphs can use nothing of the memory that PyTorch caches. It is given back once, and not before
        # each recording, as by `torch.cuda.graph`, which frees pinned memory too: that takes seconds to pin.
        torch.cuda.empty_cache()

    def __call__(self, step: Replay) -> Replay:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            step()  # a first time, in which libraries set themselves up
            graph, output = self._captured(step)
        torch.cuda.current_stream().wait_stream(self._stream)

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay

    def _captured(self, step: Replay) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # A finalizer may wait for the device, which no graph can hold.
        was_collecting = gc.isenabled()
        gc.disable()
        # Other threads, such as NCCL's watchdog, may do meanwhile what a graph cannot hold.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            output = step()
        finally:
            graph.capture_end()
            if was_collecting:
                gc.enable()
        return graph, output
