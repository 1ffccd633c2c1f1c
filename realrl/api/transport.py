"""What carries the messages of transfers from rank to rank.

    Transfer ── post(ends due in this turn) ──▶ Transport ──▶ the other rank's Transport
        └────── Pending.wait() for the last turn's ◀──┘

Weights, samples and checkpoints all move as messages of a transfer plan; a transport only carries them. Two
are built in, in `realrl.realloc.transports`. A user's own is one file, named in the config as
`transport: path/to/file.py:NAME`; `examples/transport.py` is one. NAME is called with the device type, `cpu`
or `cuda`, and returns an object with the members of `Transport`.

Order
    The messages of one tag between a sender and a receiver arrive in the order in which they were posted.
    Both ends post them in the same order, across all runs of all transfers. Nothing else is promised: ranks
    post messages of different tags in different orders.

Deadlocks
    `post` must not wait for the peer: it may not have posted its end yet. `wait` may.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the command line's help loads configs, and has no need of torch
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """A rank's end of one message."""

    sends: bool
    """Whether this rank sends the message; else it receives it."""
    buffer: Tensor
    """The bytes to send, or memory for the bytes to receive: uint8 `[num_bytes]`, contiguous, on the device
    of the tensors. Both ends have the same size. A sent buffer does not change until the wait has ended."""
    peer: int
    """The rank at the other end."""
    tag: int
    """The number of the stream, the same at both ends."""


class Pending(Protocol):
    """A message that was posted."""

    def wait(self) -> object:
        """Wait until the buffer was sent, so that it may change, or until it has the received bytes.

        On CUDA the current stream waits, not the host. The result is ignored.

        Raises:
            RuntimeError, OSError: the message did not get through.
        """


@dataclass(frozen=True)
class LinkRates:
    """Bandwidths in bytes per second, for planning."""

    link_bytes_s: float
    """From one rank to the others of its node."""
    nic_bytes_s: float
    """From one rank to other nodes."""
    node_nic_bytes_s: float
    """From all ranks of a node together to other nodes."""


class Transport(Protocol):
    """Carries messages between the ranks of a run."""

    @property
    def shares_memory(self) -> bool:
        """Return whether the ranks of a node read each message where one of them wrote it, in shared memory.

        Else each message is sent to each receiver.
        """

    @property
    def rates(self) -> LinkRates | None:
        """Return the bandwidths to plan with; None for those of one server of GPUs and its NICs."""

    def node_name(self) -> str:
        """Return a name that this process has in common with those to which messages are fast.

        With `shares_memory`, these are exactly the processes that can share memory with this one.
        """

    def bundle_bytes(self, device: torch.device) -> int:
        """Return the size of what a stream sends in one turn, above which nothing is gained.

        `device` is that of the tensors, which may be the CPU in a run on CUDA: samples are in host memory.
        """

    def connect(self) -> None:
        """Prepare this rank, once the run's process groups exist. Collective: over all ranks."""

    def post(self, ends: Iterable[MessageEnd]) -> Sequence[Pending]:
        """Begin messages, and return one `Pending` for each, in their order.

        `ends` packs a message just before it yields it: begin it before taking the next one, while its bytes
        are in the cache, unless the device begins messages together.
        """
