"""Pipeline parallelism with micro-batches of any length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch

Step = Callable[[Microbatch, Tensor | None], Tensor]
"""`(micro-batch, hidden [T, H] from the stage before) -> hidden`; on the last stage, the result or loss."""


class StageLink:
    """A rank's wires to the same tensor-parallel rank of the stages before and after it.

    A shape travels with no message: both ends know the micro-batch. Sends run in the background;
    `finish` waits for them.
    """

    def __init__(self, groups: Groups, hidden_size: int, dtype: torch.dtype, device: torch.device) -> None:
        pp_rank, dp_rank, tp_rank = groups.place
        stages = groups.placement.layout.pp

        def neighbour(stage: int) -> int | None:
            if not 0 <= stage < stages:
                return None
            return groups.placement.rank(pp_rank=stage, dp_rank=dp_rank, tp_rank=tp_rank)

        self.previous, self.next = neighbour(pp_rank - 1), neighbour(pp_rank + 1)
        self.stages_after = stages - 1 - pp_rank
        self._hidden_size, self._dtype, self._device = hidden_size, dtype, device
        self._sending: list[tuple[dist.Work, Tensor]] = []

    def receive_hidden(self, num_tokens: int) -> Tensor | None:
        return self._receive(self.previous, num_tokens)

    def send_hidden(self, hidden: Tensor) -> None:
        self._send(self.next, hidden)

    def receive_gradient(self, num_tokens: int) -> Tensor | None:
        return self._receive(self.next, num_tokens)

    def send_gradient(self, gradient: Tensor | None) -> None:
        self._send(self.previous, gradient)

    def finish(self) -> None:
        for work, _ in self._sending:
            work.wait()
        self._sending.clear()

    def _receive(self, peer: int | None, num_tokens: int) -> Tensor | None:
        if peer is None:
            return None
        tensor = torch.empty(num_tokens, self._hidden_size, dtype=self._dtype, device=self._device)
        dist.recv(tensor, src=peer)
        return tensor

    def _send(self, peer: int | None, tensor: Tensor | None) -> None:
        if peer is not None:
            tensor = tensor.detach().contiguous()
            self._sending.append((dist.isend(tensor, dst=peer), tensor))


@torch.no_grad()
def run_forward(link: StageLink, micros: Sequence[Microbatch], step: Step) -> list[Tensor]:
    """Each micro-batch through this stage; the last stage's outputs are the results."""
    outputs = []
    for micro in micros:
        output = step(micro, link.receive_hidden(micro.num_tokens))
        link.send_hidden(output)
        outputs.append(output)
    link.finish()
    return outputs


def run_1f1b(link: StageLink, micros: Sequence[Microbatch], step: Step) -> None:
    """Forward and backward of each micro-batch, one of each in turn once the pipeline is full.

    Gradients accumulate in the weights' `.grad`.
    Source: Narayanan et al. 2021, arXiv:2104.04473, section 2.2.1.
    """
    in_flight: deque[tuple[Tensor | None, Tensor, int]] = deque()

    def forward(micro: Microbatch) -> None:
        hidden = link.receive_hidden(micro.num_tokens)
        if hidden is not None:
            hidden.requires_grad_()
        output = step(micro, hidden)
        link.send_hidden(output)
        in_flight.append((hidden, output, micro.num_tokens))

    def backward() -> None:
        hidden, output, num_tokens = in_flight.popleft()
        torch.autograd.backward(output, link.receive_gradient(num_tokens))
        link.send_gradient(None if hidden is None else hidden.grad)

    num_warmup = min(link.stages_after, len(micros))
    for micro in micros[:num_warmup]:
        forward(micro)
    for micro in micros[num_warmup:]:
        forward(micro)
        backward()
    while in_flight:
        backward()
    link.finish()
