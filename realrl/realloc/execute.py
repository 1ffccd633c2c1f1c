"""Carries out a transfer plan between processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.layouts.boxes import Shape
from realrl.layouts.layout import Rank
from realrl.layouts.plan import Copy, TransferPlan
from realrl.realloc.staging import Piece, message_bytes, messages

Tensors = Mapping[str, Tensor]
Region = Callable[[Copy, Tensors], Tensor]


@torch.no_grad()
def execute(
    plan: TransferPlan, source: Tensors, target: Tensors, *, rank: int, staging_bytes: int = 256 << 20
) -> None:
    """Carry out this rank's part of `plan`, overwriting `target`.

    `source` and `target` map local tensor names to local tensors and share no storage; a global
    tensor has one dtype on every rank, and all are on one kind of device. Messages travel on the
    default process group; a rank's buffers for them take `staging_bytes` at most.

    Collective: every rank that the plan names passes the same plan and `staging_bytes`; others may
        stay away. On NCCL the group must have been used before.
    Raises:
        ValueError: `staging_bytes` has no room for one element from or to every peer.
    """
    for copy in plan.by_target.get(rank, ()):
        if not copy.crosses:
            _keep(copy, source, target)
    limit = message_bytes(plan, staging_bytes)
    pairs = plan.pairs.items()
    outgoing = [
        _Channel(to, copies, source, source_region, limit) for (by, to), copies in pairs if by == rank
    ]
    incoming = [
        _Channel(by, copies, target, target_region, limit) for (by, to), copies in pairs if to == rank
    ]
    for turn in range(max((c.num_messages for c in outgoing + incoming), default=0)):
        _exchange(outgoing, incoming, turn)


class _Channel:
    """This rank's end of the messages to or from one peer; one buffer serves them all."""

    def __init__(
        self, peer: Rank, copies: Sequence[Copy], tensors: Tensors, region: Region, limit: int
    ) -> None:
        self.peer, self._tensors, self._region = peer, tensors, region
        self._messages = list(messages(copies, lambda copy: region(copy, tensors).itemsize, limit))
        self._buffer = torch.empty(
            max(message.num_bytes for message in self._messages),
            dtype=torch.uint8,
            device=region(copies[0], tensors).device,
        )

    @property
    def num_messages(self) -> int:
        return len(self._messages)

    def message(self, turn: int) -> Tensor:
        return self._buffer[: self._messages[turn].num_bytes]

    def packed(self, turn: int) -> Tensor:
        """The turn's message, read from the tensors."""
        for piece in self._messages[turn].pieces:
            region = self._region(piece.copies[0], self._tensors)
            self._view(piece, region).copy_(region)
        return self.message(turn)

    def unpack(self, turn: int) -> None:
        """Write the turn's message into the tensors."""
        for piece in self._messages[turn].pieces:
            for copy in piece.copies:
                region = self._region(copy, self._tensors)
                region.copy_(self._view(piece, region))

    def _view(self, piece: Piece, like: Tensor) -> Tensor:
        num_bytes = like.numel() * like.itemsize
        return self._buffer[piece.begin : piece.begin + num_bytes].view(like.dtype).view(like.shape)


def _exchange(outgoing: Sequence[_Channel], incoming: Sequence[_Channel], turn: int) -> None:
    # A rank posts all of a turn before it waits for any of it, and both ends of a pair count the
    # same turns: whoever is behind finds its messages posted, so no order of ranks can deadlock.
    sending = [c for c in outgoing if turn < c.num_messages]
    receiving = [c for c in incoming if turn < c.num_messages]
    posted = [dist.P2POp(dist.irecv, c.message(turn), c.peer) for c in receiving]
    posted += [dist.P2POp(dist.isend, c.packed(turn), c.peer) for c in sending]
    for work in dist.batch_isend_irecv(posted) if posted else ():
        work.wait()
    for channel in receiving:
        channel.unpack(turn)


def _keep(copy: Copy, source: Tensors, target: Tensors) -> None:
    held, wanted = source_region(copy, source), target_region(copy, target)
    assert held.dtype == wanted.dtype, f"{copy.tensor} is {held.dtype} here and {wanted.dtype} in the target"
    wanted.copy_(held)


def source_region(copy: Copy, tensors: Tensors) -> Tensor:
    """The view that `copy` reads."""
    return _region(tensors[copy.source_local], copy.source_offset, copy.shape)


def target_region(copy: Copy, tensors: Tensors) -> Tensor:
    """The view that `copy` writes."""
    return _region(tensors[copy.target_local], copy.target_offset, copy.shape)


def _region(tensor: Tensor, offset: Shape, shape: Shape) -> Tensor:
    assert tensor.dim() == len(shape), f"{tuple(tensor.shape)} cannot hold a box of shape {shape}"
    for dim, (start, length) in enumerate(zip(offset, shape, strict=True)):
        tensor = tensor.narrow(dim, start, length)
    return tensor
