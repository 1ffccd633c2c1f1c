"""Pipeline parallelism with micro-batches of any length.

stage            0          1          2
wires              hidden ->  hidden ->              between neighbours
                  <- gradient <- gradient
                 <------- hidden_back ------->       from the last stage to the first, and
                 <------ gradient_back ------>       the reverse, if stages have several chunks
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.api.mesh import ParallelLayout
from realrl.base.waiting import wait_for_ranks
from realrl.ops.linear import WeightGradients
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch
from realrl.parallel.pipeline_schedule import Kind, forward_order, training_order

Step = Callable[[Microbatch, Tensor | None, int], Tensor]
"""`(micro-batch, hidden [T, H] of the chunk before, chunk) -> hidden [T, H]`.

The last chunk returns the result or the loss.
"""

NumRows = Callable[[int], int]
"""`(number of tokens) -> number of rows` of the hidden states between stages."""

Passed = Callable[[float], None]
"""Called after each pass of a micro-batch with the share of all passes of this stage that are done."""


def max_sending(layout: ParallelLayout) -> int:
    """Return the most sends that are under way at a time.

    The receiver of more has received the earlier ones: `training_order` lets no stage run further ahead.
    """
    return 8 * layout.pp * layout.vp


class StageLink:
    """A rank's wires to the same tensor-parallel rank of the stages before and after it, in a ring.

    Shapes are not sent: both ends know the micro-batch. Sends run in the background; at most `max_sending`
    are under way, and `finish` waits for the last.

    Shapes: R rows of hidden states, H hidden size.
    """

    def __init__(self, groups: Groups, hidden_size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layout = groups.placement.layout
        self.pp_rank = groups.place.pp_rank

        # Stages form a ring.
        self._previous = _rank_of_stage(groups, self.pp_rank - 1)
        self._next = _rank_of_stage(groups, self.pp_rank + 1)
        self._wires = groups.wires
        self._hidden_size = hidden_size
        self._dtype = dtype
        self._device = device
        self._sending: deque[tuple[dist.Work, Tensor]] = deque()
        """Sends under way, each with its tensor, whose memory must not be reused before."""

    def is_first(self, chunk: int) -> bool:
        """Whether a chunk begins with the embedding."""
        return self.pp_rank == chunk == 0

    def is_last(self, chunk: int) -> bool:
        """Whether a chunk ends with the head."""
        is_last_stage = self.pp_rank == self.layout.pp - 1
        is_last_chunk = chunk == self.layout.vp - 1
        return is_last_stage and is_last_chunk

    def receive_hidden(self, num_rows: int, chunk: int) -> Tensor | None:
        """Return the output of the chunk before, `[R, H]`; None for the first chunk."""
        if self.is_first(chunk):
            return None
        wire = self._wire("hidden", closes_ring=self.pp_rank == 0)
        return self._receive(self._previous, num_rows, wire)

    def send_hidden(self, hidden: Tensor, chunk: int) -> None:
        """Begin to send `[R, H]` to the chunk after this one, unless this is the last."""
        if not self.is_last(chunk):
            wire = self._wire("hidden", closes_ring=self._next_is_first)
            self._send(self._next, hidden, wire)

    def receive_gradient(self, num_rows: int, chunk: int) -> Tensor | None:
        """Return the gradient of this chunk's output, `[R, H]`; None for the last chunk."""
        if self.is_last(chunk):
            return None
        wire = self._wire("gradient", closes_ring=self._next_is_first)
        return self._receive(self._next, num_rows, wire)

    def send_gradient(self, gradient: Tensor | None, chunk: int) -> None:
        """Begin to send the gradient of a chunk's input, `[R, H]` or None, to the chunk before, if any."""
        if gradient is not None:
            wire = self._wire("gradient", closes_ring=self.pp_rank == 0)
            self._send(self._previous, gradient, wire)

    def finish(self, num_left: int = 0) -> None:
        """Wait until at most `num_left` sends are under way."""
        while len(self._sending) > num_left:
            work, _ = self._sending.popleft()
            wait_for_ranks(work.wait)

    @property
    def _next_is_first(self) -> bool:
        return self.pp_rank == self.layout.pp - 1

    def _wire(self, kind: str, *, closes_ring: bool) -> ProcessGroup:
        """Return the group of a kind of message.

        Two stages may be both before and after each other. Each kind therefore has a group of its own, in
        which messages keep their order.
        """
        name = f"{kind}_back" if closes_ring else kind
        return self._wires[name]

    def _receive(self, peer: int, num_rows: int, wire: ProcessGroup) -> Tensor:
        tensor = torch.empty(
            num_rows,
            self._hidden_size,
            dtype=self._dtype,
            device=self._device,
        )
        wait_for_ranks(dist.recv, tensor, src=peer, group=wire)
        return tensor

    def _send(self, peer: int, tensor: Tensor, wire: ProcessGroup) -> None:
        tensor = tensor.detach().contiguous()
        work = wait_for_ranks(dist.isend, tensor, dst=peer, group=wire)
        assert work is not None, "this rank must be part of the wire that it sends on"
        self._sending.append((work, tensor))
        self.finish(max_sending(self.layout))


def _rank_of_stage(groups: Groups, pp_rank: int) -> int:
    """Return the global rank of a stage in this rank's pipeline; stages form a ring."""
    return groups.placement.rank(
        pp_rank=pp_rank % groups.placement.layout.pp,
        dp_rank=groups.place.dp_rank,
        tp_rank=groups.place.tp_rank,
    )


@torch.no_grad()
def run_forward(
    link: StageLink,
    micros: Sequence[Microbatch],
    step: Step,
    num_rows: NumRows,
    passed: Passed = lambda share: None,
) -> list[Tensor]:
    """Run each micro-batch through this stage, and return its outputs; the last stage's are the results."""
    outputs: dict[int, Tensor] = {}
    num_micros = len(micros)
    order = list(forward_order(link.layout, num_micros))
    for number, (_, index, chunk) in enumerate(order, start=1):
        micro = micros[index]
        rows = num_rows(micro.num_tokens)
        hidden = link.receive_hidden(rows, chunk)
        outputs[index] = step(micro, hidden, chunk)
        # Between two steps, only the outputs are kept.
        del hidden
        link.send_hidden(outputs[index], chunk)
        passed(number / len(order))

    link.finish()
    return [outputs[index] for index in range(num_micros)]


def run_training(
    link: StageLink,
    micros: Sequence[Microbatch],
    step: Step,
    num_rows: NumRows,
    weight_gradients: WeightGradients | None,
    passed: Passed = lambda share: None,
) -> None:
    """Run the forward and backward passes of each micro-batch. Gradients go to the weights' `.grad`.

    With `weight_gradients`, gradients of the model's matrices go there instead.
    """
    training = _Training(link, step, weight_gradients)
    last = len(micros) - 1
    order = list(training_order(link.layout, link.pp_rank, len(micros)))
    for number, (kind, index, chunk) in enumerate(order, start=1):
        micro = micros[index]
        rows = num_rows(micro.num_tokens)
        if weight_gradients is not None:
            weight_gradients.is_last = index == last
        if kind is Kind.FORWARD:
            training.forward(micro, index, chunk, rows)
        elif kind is Kind.BACKWARD:
            training.backward(index, chunk, rows)
        else:
            training.weights(index, chunk)
        passed(number / len(order))

    link.finish()


_Key = tuple[int, int]
"""Index of a micro-batch, and a chunk."""


class _Training:
    """The passes of a training step, with what a micro-batch's earlier passes leave to its later ones.

    A micro-batch is given by its index, R is its rows of hidden states.
    """

    def __init__(self, link: StageLink, step: Step, weight_gradients: WeightGradients | None) -> None:
        self._link = link
        self._step = step
        self._weight_gradients = weight_gradients
        self._held: dict[_Key, tuple[Tensor | None, Tensor]] = {}
        """Input and output of each chunk of a micro-batch between its forward and its backward pass."""
        self._put_off: dict[_Key, list[Callable[[], None]]] = {}
        """Products of a chunk's backward pass that give the gradients of weights."""

    def forward(self, micro: Microbatch, index: int, chunk: int, rows: int) -> None:
        """Compute a chunk's output, and send it on."""
        hidden = self._link.receive_hidden(rows, chunk)
        if hidden is not None:
            hidden.requires_grad_()
        output = self._step(micro, hidden, chunk)
        self._link.send_hidden(output, chunk)
        self._held[index, chunk] = hidden, output

    def backward(self, index: int, chunk: int, rows: int) -> None:
        """Compute the gradient of a chunk's input, and send it back."""
        key = index, chunk
        hidden, output = self._held.pop(key)
        grad_output = self._link.receive_gradient(rows, chunk)
        torch.autograd.backward(output, grad_output)
        del grad_output
        if hidden is not None:
            self._link.send_gradient(hidden.grad, chunk)
        if self._weight_gradients is not None:
            self._put_off[key] = self._weight_gradients.take()

    def weights(self, index: int, chunk: int) -> None:
        """Compute the gradients of a chunk's weights that its backward pass put off."""
        if self._weight_gradients is None:
            return
        products = self._put_off.pop((index, chunk))
        for product in products:
            product()
