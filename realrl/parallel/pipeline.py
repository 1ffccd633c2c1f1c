"""Pipeline parallelism with micro-batches of any length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.api.mesh import ParallelLayout
from realrl.ops.linear import WeightGradients
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch
from realrl.parallel.pipeline_schedule import Kind, forward_order, training_order

Step = Callable[[Microbatch, Tensor | None, int], Tensor]
"""`(micro-batch, hidden [T, H] from the chunk before, chunk) -> hidden`; behind the last, result or loss."""


def max_sending(layout: ParallelLayout) -> int:
    """Sends that are under way at most: by then a receiver has come to the earlier ones, as `training_order`
    lets no stage run further ahead."""
    return 8 * layout.pp * layout.vp


class StageLink:
    """A rank's wires to the same tensor-parallel rank of the stages before and after it, in a ring.

    A shape travels with no message: both ends know the micro-batch. Sends run in the background; some
    are under way at a time, and `finish` waits for the last.
    """

    def __init__(self, groups: Groups, hidden_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout, (self.pp_rank, dp_rank, tp_rank) = groups.placement.layout, groups.place

        def stage(pp_rank: int) -> int:
            pp_rank %= self.layout.pp
            return groups.placement.rank(pp_rank=pp_rank, dp_rank=dp_rank, tp_rank=tp_rank)

        self._previous, self._next = stage(self.pp_rank - 1), stage(self.pp_rank + 1)
        self._wires = groups.wires
        self._hidden_size, self._dtype, self._device = hidden_size, dtype, device
        self._sending: deque[tuple[dist.Work, Tensor]] = deque()

    def is_first(self, chunk: int) -> bool:
        """Whether a chunk begins with the embedding."""
        return self.pp_rank == chunk == 0

    def is_last(self, chunk: int) -> bool:
        """Whether a chunk ends with the head."""
        return self.pp_rank == self.layout.pp - 1 and chunk == self.layout.vp - 1

    def receive_hidden(self, num_rows: int, chunk: int) -> Tensor | None:
        """What the chunk before made; None where there is none."""
        if self.is_first(chunk):
            return None
        return self._receive(self._previous, num_rows, self._wire("hidden", self.pp_rank == 0))

    def send_hidden(self, hidden: Tensor, chunk: int) -> None:
        """To the chunk after this one, if there is one."""
        if not self.is_last(chunk):
            self._send(self._next, hidden, self._wire("hidden", self._next_is_first))

    def receive_gradient(self, num_rows: int, chunk: int) -> Tensor | None:
        if self.is_last(chunk):
            return None
        return self._receive(self._next, num_rows, self._wire("gradient", self._next_is_first))

    def send_gradient(self, gradient: Tensor | None, chunk: int) -> None:
        if gradient is not None:
            self._send(self._previous, gradient, self._wire("gradient", self.pp_rank == 0))

    def finish(self, num_left: int = 0) -> None:
        """Wait until no more than `num_left` sends are under way."""
        while len(self._sending) > num_left:
            self._sending.popleft()[0].wait()

    @property
    def _next_is_first(self) -> bool:
        return self.pp_rank == self.layout.pp - 1

    def _wire(self, kind: str, closes_ring: bool) -> ProcessGroup:
        """Two stages may be both before and after each other: each kind of message has a group of its own,
        in which they keep one order."""
        return self._wires[f"{kind}_back" if closes_ring else kind]

    def _receive(self, peer: int, num_rows: int, wire: ProcessGroup) -> Tensor:
        tensor = torch.empty(num_rows, self._hidden_size, dtype=self._dtype, device=self._device)
        dist.recv(tensor, src=peer, group=wire)
        return tensor

    def _send(self, peer: int, tensor: Tensor, wire: ProcessGroup) -> None:
        tensor = tensor.detach().contiguous()
        self._sending.append((dist.isend(tensor, dst=peer, group=wire), tensor))
        self.finish(max_sending(self.layout))


NumRows = Callable[[int], int]
"""Rows of the hidden states between stages, of so many tokens."""


Passed = Callable[[float], None]
"""Told after each pass of a micro-batch what share of all this stage has made."""


@torch.no_grad()
def run_forward(
    link: StageLink,
    micros: Sequence[Microbatch],
    step: Step,
    num_rows: NumRows,
    passed: Passed = lambda share: None,
) -> list[Tensor]:
    """Each micro-batch through this stage; the last stage's outputs are the results."""
    outputs = {}
    order = list(forward_order(link.layout, len(micros)))
    for number, (_, index, chunk) in enumerate(order, start=1):
        micro = micros[index]
        outputs[index] = step(micro, link.receive_hidden(num_rows(micro.num_tokens), chunk), chunk)
        link.send_hidden(outputs[index], chunk)
        passed(number / len(order))
    link.finish()
    return [outputs[index] for index in range(len(micros))]


def run_training(
    link: StageLink,
    micros: Sequence[Microbatch],
    step: Step,
    num_rows: NumRows,
    weight_gradients: WeightGradients | None,
    passed: Passed = lambda share: None,
) -> None:
    """Forward and backward of each micro-batch. Gradients go to the weights' `.grad`.

    `weight_gradients`: where the model's matrices have theirs instead, if they do.
    """
    held: dict[tuple[int, int], tuple[Tensor | None, Tensor]] = {}
    put_off = {}
    order = list(training_order(link.layout, link.pp_rank, len(micros)))
    for number, (kind, index, chunk) in enumerate(order, start=1):
        rows = num_rows(micros[index].num_tokens)
        if weight_gradients is not None:
            weight_gradients.is_last = index == len(micros) - 1
        if kind is Kind.FORWARD:
            hidden = link.receive_hidden(rows, chunk)
            if hidden is not None:
                hidden.requires_grad_()
            output = step(micros[index], hidden, chunk)
            link.send_hidden(output, chunk)
            held[index, chunk] = hidden, output
        elif kind is Kind.BACKWARD:
            hidden, output = held.pop((index, chunk))
            torch.autograd.backward(output, link.receive_gradient(rows, chunk))
            link.send_gradient(None if hidden is None else hidden.grad, chunk)
            if weight_gradients is not None:
                put_off[index, chunk] = weight_gradients.take()
        elif weight_gradients is not None:
            for product in put_off.pop((index, chunk)):
                product()
        passed(number / len(order))
    link.finish()
