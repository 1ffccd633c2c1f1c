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

from realrl.base.waiting import wait_for_device

Replay = Callable[[], Tensor]
"""Runs a recorded step on the current contents of its inputs; the result is in the same memory each time."""
Record = Callable[[Replay], Replay]
"""Returns the replay of a step. The step may be run, any number of times."""

_SIZES = sorted({base << n for base in (1, 3) for n in range(20)})


def size_of(num_rows: int) -> int:
    """Return the number of rows that is recorded for this many sequences: at most half as many again."""
    return _SIZES[bisect_left(_SIZES, num_rows)]


class RecordedStep:
    """A step of any number of rows, recorded separately for each number that is prepared.

    The step must read and write the same memory each time.
    """

    def __init__(self, step: Callable[[int], Tensor], record: Record) -> None:
        self._step = step
        self._record = record
        self._replays: dict[int, Replay] = {}

    def prepare(self, size: int) -> None:
        """Record the step for `size` rows."""
        self._replays[size] = self._record(partial(self._step, size))

    def __call__(self, size: int) -> Tensor:
        """Return the step's result, which is valid until the next call."""
        return self._replays[size]()


class CudaRecorder:
    """Records steps as graphs that share memory: only one of them is replayed at a time.

    The memory is freed with the last graph, after which nothing more can be recorded.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream()
        # The graphs cannot use the memory that PyTorch caches. It is returned to the device once. The context
        # `torch.cuda.graph` does so before each recording, and also frees pinned memory, which takes seconds
        # to pin again.
        torch.cuda.empty_cache()

    def __call__(self, step: Replay) -> Replay:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # The first run lets libraries allocate what they need.
            step()
            graph, output = self._captured(step)

        torch.cuda.current_stream().wait_stream(self._stream)

        def replay() -> Tensor:
            """Run the graph, and return the memory of its output."""
            graph.replay()
            return output

        return replay

    def _captured(self, step: Replay) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        wait_for_device(torch.cuda.synchronize)
        graph = torch.cuda.CUDAGraph()
        # A finalizer may wait for the device, which no graph can capture.
        was_collecting = gc.isenabled()
        gc.disable()
        # Other threads, such as NCCL's watchdog, may make calls that a graph cannot capture.
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            output = step()
        finally:
            graph.capture_end()
            if was_collecting:
                gc.enable()
        return graph, output
