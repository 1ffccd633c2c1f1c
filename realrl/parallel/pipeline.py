"""A pipeline stage's messages to the stages before and after it.

stage            0          1          2
wires              hidden ->  hidden ->              between neighbours
                  <- gradient <- gradient
                 <------- hidden_back ------->       from the last stage to the first, and
                 <------ gradient_back ------>       the reverse, if stages have several chunks
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.api.mesh import ParallelLayout
from realrl.base.waiting import wait_for_ranks
from realrl.parallel.groups import Groups

WireKind = Literal["hidden", "gradient"]
"""Hidden states travel to the chunk after, and their gradients to the chunk before."""


def max_sending(layout: ParallelLayout) -> int:
    """Return the most sends that are under way at a time.

    The receiver of more has received the earlier ones: `training_order` lets no stage run further ahead.
    """
    return 8 * layout.pp * layout.vp


class _Neighbour(NamedTuple):
    """The stage before or after this one in the ring of stages."""

    rank: int
    closes_ring: bool
    """Whether the ring closes between this stage and the neighbour."""


class StageLink:
    """A rank's wires to the same tensor-parallel rank of the stages before and after it, in a ring.

    Shapes are not sent: both ends know the micro-batch. Sends run in the background; at most `max_sending`
    are under way, and `finish` waits for the last.

    Shapes: R rows of hidden states, H hidden size.
    """

    def __init__(self, groups: Groups, hidden_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = groups.placement.layout
        self.pp_rank = groups.place.pp_rank
        self._is_first_stage = self.pp_rank == 0
        self._is_last_stage = self.pp_rank == self.layout.pp - 1
        self._previous = _Neighbour(
            _rank_of_stage(groups, self.pp_rank - 1),
            closes_ring=self._is_first_stage,
        )
        self._next = _Neighbour(
            _rank_of_stage(groups, self.pp_rank + 1),
            closes_ring=self._is_last_stage,
        )
        self._wires = groups.wires
        self._hidden_size = hidden_size
        self._dtype = dtype
        self._device = device
        self._sending: deque[tuple[dist.Work, Tensor]] = deque()
        """Sends under way, each with its tensor, whose memory must not be reused before."""

    def is_first(self, chunk: int) -> bool:
        """Whether a chunk begins with the embedding."""
        return self._is_first_stage and chunk == 0

    def is_last(self, chunk: int) -> bool:
        """Whether a chunk ends with the head."""
        is_last_chunk = chunk == self.layout.vp - 1
        return self._is_last_stage and is_last_chunk

    def receive(self, kind: WireKind, num_rows: int, chunk: int) -> Tensor | None:
        """Return a chunk's input, or the gradient of its output, `[R, H]`.

        None for the input of the first chunk, and for the gradient of the last one.
        """
        source = self._before(chunk) if kind == "hidden" else self._after(chunk)
        if source is None:
            return None
        tensor = torch.empty(
            num_rows,
            self._hidden_size,
            dtype=self._dtype,
            device=self._device,
        )
        wire = self._wire(kind, source)
        wait_for_ranks(dist.recv, tensor, src=source.rank, group=wire)
        return tensor

    def send(self, kind: WireKind, tensor: Tensor, chunk: int) -> None:
        """Begin to send a chunk's output, or the gradient of its input, `[R, H]`.

        Nothing is sent of the output of the last chunk, nor of the gradient of the first one.
        """
        target = self._after(chunk) if kind == "hidden" else self._before(chunk)
        if target is None:
            return
        tensor = tensor.detach().contiguous()
        wire = self._wire(kind, target)
        work = wait_for_ranks(dist.isend, tensor, dst=target.rank, group=wire)
        assert work is not None, "this rank must be part of the wire that it sends on"
        self._sending.append((work, tensor))
        self.finish(max_sending(self.layout))

    def finish(self, num_left: int = 0) -> None:
        """Wait until at most `num_left` sends are under way."""
        while len(self._sending) > num_left:
            work, _ = self._sending.popleft()
            wait_for_ranks(work.wait)

    def _before(self, chunk: int) -> _Neighbour | None:
        """Return the stage of the chunk before."""
        return None if self.is_first(chunk) else self._previous

    def _after(self, chunk: int) -> _Neighbour | None:
        """Return the stage of the chunk after."""
        return None if self.is_last(chunk) else self._next

    def _wire(self, kind: WireKind, neighbour: _Neighbour) -> ProcessGroup:
        """Return the group of a kind of message.

        Two stages may be both before and after each other. Each kind therefore has a group of its own, in
        which messages keep their order.
        """
        name = f"{kind}_back" if neighbour.closes_ring else kind
        return self._wires[name]


def _rank_of_stage(groups: Groups, pp_rank: int) -> int:
    """Return the global rank of a stage in this rank's pipeline; stages form a ring."""
    return groups.placement.rank(
        pp_rank=pp_rank % groups.placement.layout.pp,
        dp_rank=groups.place.dp_rank,
        tp_rank=groups.place.tp_rank,
    )
