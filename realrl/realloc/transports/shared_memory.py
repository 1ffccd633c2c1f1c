"""Messages through memory that the processes of a host share; between hosts, over the process group.

owner                                           reader
SharedMemory ── handle ──▶ default group ──▶ open_shared
     ◀───────── acknowledgement ──────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.api.transport import Sharing
from realrl.base.waiting import wait_for_ranks
from realrl.realloc.shared import SharedMemory, host_id, open_shared
from realrl.realloc.transports.collective import HOST_RATES, CollectiveTransport

_BUNDLE_BYTES = 4 << 20
"""Bytes that a stream moves in a turn through shared memory: they stay in the cache until they are read."""
_HANDLE_WORDS = 3
"""Length of the handle of a `SharedMemory`."""


class SharedFiles:
    """Memory without a name, whose handles go over the default process group."""

    def exchange(
        self, num_bytes: int, readers: Sequence[int], writers: Sequence[int]
    ) -> tuple[Tensor | None, Mapping[int, Tensor]]:
        """Map and return the memories; wait until `readers` have mapped this rank's."""
        own = SharedMemory(num_bytes) if num_bytes else None
        sent: list[dist.Work | None] = []
        if own is not None:
            sent += [wait_for_ranks(dist.isend, own.handle, reader) for reader in readers]
        memories: dict[int, Tensor] = {}
        for writer in writers:
            handle = torch.empty(_HANDLE_WORDS, dtype=torch.int64)
            wait_for_ranks(dist.recv, handle, writer)
            memories[writer] = open_shared(handle)

        # A handle names a file descriptor of its owner, which must live until its readers have opened it.
        acknowledgement = torch.zeros(1)
        sent += [wait_for_ranks(dist.isend, acknowledgement, writer) for writer in writers]
        for reader in readers:
            wait_for_ranks(dist.recv, torch.empty(1), reader)
        for work in sent:
            assert work is not None, "every rank is of the default process group"
            wait_for_ranks(work.wait)

        return (own.memory if own else None), memories


class SharedMemoryTransport(CollectiveTransport):
    """Lets the ranks of a host read each message where one of them wrote it; for tensors in host memory.

    Messages to other hosts go over the process group.
    """

    sharing: Sharing | None = SharedFiles()

    def __init__(self) -> None:
        super().__init__(HOST_RATES)

    def node_name(self) -> str:
        """Return the name of the host, and of this container and user, whose processes share memory."""
        return host_id()

    def bundle_bytes(self, device: torch.device) -> int:
        """Return the bytes that stay in the cache."""
        return _BUNDLE_BYTES
