"""Runs ops on the CUDA kernels' rehearsal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from realrl.ops import kernels
from tests.rehearsal.device import ORDERS, DeviceMemory, Library, RehearsedKernels


@contextmanager
def rehearsing(library: Library, order: int, processors: int = 1) -> Iterator[None]:
    """Ops on CPU tensors call the CUDA kernels, whose threads run in an order."""
    wrapper = RehearsedKernels(library)
    library.start(order, processors)
    with pytest.MonkeyPatch.context() as patch, DeviceMemory(library):
        patch.setattr(kernels, "for_device", lambda device: wrapper)
        yield


def in_every_order(
    library: Library, function: Callable[..., Sequence[Tensor]], *inputs: object, processors: int = 1
) -> Sequence[Tensor]:
    """The results of `function(*inputs)`, which are the same bits in every thread order.

    Tensors among the inputs are copied for each call, so that `function` may change them.
    """
    results = []
    for order in ORDERS:
        with rehearsing(library, order, processors):
            copies = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
            results.append(function(*copies))
        for first, other in zip(results[0], results[-1], strict=True):
            assert torch.equal(bits(first), bits(other)), f"thread order {order} gives another result"
    return results[0]


def bits(tensor: Tensor) -> Tensor:
    """Its bytes, so that NaN equals NaN."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def displaced(tensor: Tensor, elements: int) -> Tensor:
    """A copy that begins some elements after an aligned address."""
    buffer = tensor.new_empty(elements + tensor.numel())
    return buffer[elements:].view(tensor.shape).copy_(tensor)
