"""Counters in shared memory: one process publishes a number, and others wait until it is reached.

A counter is an int32 `[1]` view of a shared mapping. Writes before `publish` are visible to a process after
its `wait_at_least` has returned True.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from realrl.ops import kernels

_SLICE_S = 0.1
"""The longest wait inside the kernel, during which Python handles no signals."""
_POLL_S = 1e-3
"""The polling interval without kernels."""


def publish(counter: Tensor, value: int) -> None:
    """Set the counter and wake all processes that wait for it; its value must never decrease."""
    _check(counter)
    kernel = kernels.cpu_kernels()
    if kernel is None:
        counter.fill_(value)
    else:
        kernel.publish(counter, value)


def wait_at_least(counter: Tensor, value: int, timeout_s: float) -> bool:
    """Wait until the counter reaches `value`, and return False after `timeout_s` seconds without it."""
    _check(counter)
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        slice_s = min(max(left, 0.0), _SLICE_S)
        if _wait_slice(counter, value, slice_s):
            return True
        if left <= 0:
            return False


def _wait_slice(counter: Tensor, value: int, slice_s: float) -> bool:
    kernel = kernels.cpu_kernels()
    if kernel is not None:
        return kernel.wait_at_least(counter, value, slice_s)
    if counter.item() >= value:
        return True
    time.sleep(min(slice_s, _POLL_S))
    return False


def _check(counter: Tensor) -> None:
    """Raise if the tensor is no counter: the kernel reads raw memory, and a futex is four aligned bytes."""
    if counter.dtype != torch.int32 or counter.shape != (1,) or counter.device.type != "cpu":
        got = f"{counter.dtype} {list(counter.shape)} on {counter.device}"
        raise ValueError(f"a counter must be torch.int32 [1] on the CPU, got {got}")
    if counter.data_ptr() % 4:
        raise ValueError("a counter's address must be a multiple of 4")
