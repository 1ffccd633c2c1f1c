"""Messages over the default process group: gloo for host memory, NCCL for CUDA's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist

from realrl.api.transport import LinkRates, MessageEnd, Pending
from realrl.base.waiting import wait_for_ranks
from realrl.realloc.shared import host_id, machine_id

HOST_RATES = LinkRates(link_bytes_s=5e9, nic_bytes_s=3e9, node_nic_bytes_s=3e9)
"""Rates of a host without accelerators: memory copies, and one NIC of 25 Gb/s for all ranks."""
_BUNDLE_BYTES = {"cpu": 16 << 20, "cuda": 128 << 20}
"""Bytes that a stream sends in a turn, by device type.

They hide the cost of a turn: on CUDA 0.4 ms of the host's time, as long as 128 MiB take over NVLink.
"""
_SHARED_BUNDLE_BYTES = 4 << 20
"""Bytes that a stream moves in a turn through shared memory: they stay in the cache until they are read."""


class _Begun:
    """A message whose wait is covered by that for an earlier message."""

    def wait(self) -> None:
        """Return at once."""


class CollectiveTransport:
    """Sends every message to every receiver. On NCCL the default group must have been used before."""

    shares_memory: bool = False

    def __init__(self, rates: LinkRates | None = None) -> None:
        self.rates = rates

    def node_name(self) -> str:
        """Return the machine's name: its devices are linked even across containers."""
        return machine_id()

    def bundle_bytes(self, device: torch.device) -> int:
        """Return the bytes that hide the cost of a turn."""
        return _BUNDLE_BYTES[device.type]

    def connect(self) -> None:
        """Return at once: the default process group is connected already."""

    def post(self, ends: Iterable[MessageEnd]) -> Sequence[Pending]:
        """Begin messages: on a CPU one by one as they are packed, on CUDA together in one NCCL group."""
        begun: list[Pending] = []
        on_device: list[MessageEnd] = []

        for end in ends:
            if end.buffer.is_cuda:
                on_device.append(end)
                continue
            kind = dist.isend if end.sends else dist.irecv
            work = kind(end.buffer, end.peer, tag=end.tag)
            assert work is not None, "every rank is of the default process group"
            begun.append(work)

        assert not (begun and on_device), "tensors of one transfer are on a CPU and on CUDA"
        return _begin_together(on_device) if on_device else begun


def _begin_together(ends: Sequence[MessageEnd]) -> list[Pending]:
    """Begin messages between CUDA devices in one NCCL group."""
    operations: list[dist.P2POp] = []
    for end in ends:
        kind = dist.isend if end.sends else dist.irecv
        operations.append(dist.P2POp(kind, end.buffer, end.peer))

    works = wait_for_ranks(dist.batch_isend_irecv, operations)
    # One work may stand for the whole group; the wait for it then covers the other messages.
    missing = [_Begun() for _ in range(len(ends) - len(works))]
    return [*works, *missing]


class SharedMemoryTransport(CollectiveTransport):
    """Lets the ranks of a host read each message where one of them wrote it; for tensors in host memory.

    Messages to other hosts go over the process group.
    """

    shares_memory: bool = True

    def __init__(self) -> None:
        super().__init__(HOST_RATES)

    def node_name(self) -> str:
        """Return the name of the host, and of this container and user, whose processes share memory."""
        return host_id()

    def bundle_bytes(self, device: torch.device) -> int:
        """Return the bytes that stay in the cache."""
        return _SHARED_BUNDLE_BYTES
