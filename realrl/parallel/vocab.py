"""Log-probabilities of tokens from hidden states, with the vocabulary spread over tensor-parallel ranks.

The logits of a long batch are far larger than anything else in the model. They are computed in chunks of
tokens, in the dtype of the hidden states, and never all at once unless they are few.
Shapes: T tokens, H hidden size, V_part this rank's rows of the output weight, padding included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.base.waiting import wait_for_ranks
from realrl.ops.linear import WeightGradients, add_product_, tiled_product
from realrl.ops.logits import LogitsMap, TokenLogprobs, finish, gradient_, statistics
from realrl.parallel.groups import all_reduce


class LogitsBudget(NamedTuple):
    """The most bytes of logits that a device holds at a time."""

    chunk_bytes: int
    """In a pass that keeps no logits: enough tokens for an efficient product."""
    kept_bytes: int
    """Between the forward and the backward pass.

    The backward pass recomputes more logits than these, this many at a time: to add the chunks' gradients of
    the weight costs as much as the products of some hundred tokens.
    """


LOGITS_BUDGETS = {"cpu": LogitsBudget(64 << 20, 256 << 20), "cuda": LogitsBudget(1 << 30, 4 << 30)}
"""By device type. On CUDA, 1 GiB is 3,500 rows of a vocabulary of 152,000: enough for a full product."""


def vocab_logprobs(
    hidden: Tensor,
    weight_part: Tensor,
    labels: Tensor,
    group: ProcessGroup | None,
    *,
    num_real: int,
    temperature: float = 1.0,
    softcap: float | None = None,
    entropy: bool = False,
    tiled: bool = False,
    weight_gradients: WeightGradients | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return each label's log-probability, and on request the entropy.

    The distribution of a token is softmax(hidden @ weight / temperature).
    Differentiable in `hidden` and `weight_part`. A label outside the vocabulary has -inf. With `tiled`, a
    token's results depend on that token alone, bit for bit. `weight_gradients` takes the gradient of
    `weight_part`, at once, because logits are not kept.

    Shapes: hidden `[T, H]`, the same on every rank of `group`; weight_part `[V_part, H]`, whose first
        `num_real` rows are real, V_part the same on every rank; labels int64 `[T]`; returns float32 `[T]`.
    Collective: over `group`, forward and backward.
    """
    mapping = _mapping(len(weight_part), group, num_real, temperature, softcap)
    hidden = hidden.contiguous()
    if torch.is_grad_enabled() and (hidden.requires_grad or weight_part.requires_grad):
        weight = weight_part if weight_gradients is None else weight_part.detach()
        logprobs, entropies = _VocabLogprobs.apply(
            hidden, weight, labels, mapping, group, tiled, weight_gradients
        )
    else:
        parts = _chunks_statistics(hidden, weight_part, labels, mapping, tiled)
        logprobs, entropies, _ = _join(parts, hidden, group)
    return logprobs, entropies if entropy else None


def label_logprobs(
    logits_part: Tensor,
    labels: Tensor,
    group: ProcessGroup | None,
    *,
    num_real: int,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Return each label's log-probability from existing logits, the same bits as from `vocab_logprobs`.

    Shapes: logits_part `[T, V_part]`, labels int64 `[T]`; returns float32 `[T]`.
    Collective: over `group`.
    """
    num_rows = logits_part.shape[1]
    mapping = _mapping(num_rows, group, num_real, temperature, softcap)
    part = statistics(logits_part, labels, mapping)
    return _join([part], logits_part, group).logprobs


def _mapping(
    part_size: int, group: ProcessGroup | None, num_real: int, temperature: float, softcap: float | None
) -> LogitsMap:
    """Describe this rank's part of the vocabulary: `part_size` rows, of which `num_real` are real."""
    rank = 0 if group is None else dist.get_rank(group)
    return LogitsMap(
        first=rank * part_size,
        num_real=max(num_real, 0),
        temperature=temperature,
        softcap=softcap,
    )


def budget_of(hidden: Tensor) -> LogitsBudget:
    """Return the budget for logits on the device of some hidden states."""
    return LOGITS_BUDGETS[hidden.device.type]


def token_chunks(num_tokens: int, row_bytes: int, chunk_bytes: int) -> list[slice]:
    """Return even chunks of tokens whose logits fit in `chunk_bytes`."""
    most = max(chunk_bytes // row_bytes, 1)
    num_full = -(-num_tokens // most)
    num_chunks = max(num_full, 1)
    size = -(-num_tokens // num_chunks)

    chunks = []
    for start in range(0, num_tokens, size or 1):
        stop = min(start + size, num_tokens)
        chunks.append(slice(start, stop))
    return chunks


def _logits(
    hidden: Tensor, weight: Tensor, chunk_bytes: int, *, tiled: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Yield each chunk and its logits, all in the same memory.

    Shapes: hidden `[T, H]`, weight `[V_part, H]`; yields `[chunk, V_part]`.
    """
    row_bytes = len(weight) * hidden.itemsize
    chunks = token_chunks(len(hidden), row_bytes, chunk_bytes)
    # No chunk is longer than the first.
    longest = chunks[0].stop if chunks else 0
    buffer = hidden.new_empty(longest, len(weight))
    for chunk in chunks:
        num_rows = chunk.stop - chunk.start
        out = buffer[:num_rows]
        yield chunk, _product(hidden[chunk], weight, tiled, out)


def _product(hidden: Tensor, weight: Tensor, tiled: bool, out: Tensor) -> Tensor:
    """Write `hidden @ weight.T` into `out`, and return it."""
    if tiled:
        return out.copy_(tiled_product(hidden, weight))
    return torch.mm(hidden, weight.t(), out=out)


def _chunks_statistics(
    hidden: Tensor, weight: Tensor, labels: Tensor, mapping: LogitsMap, tiled: bool
) -> list[Tensor]:
    """Return the statistics of each chunk of tokens, `[chunk, 4]`, without keeping logits."""
    parts = []
    chunk_bytes = budget_of(hidden).chunk_bytes
    for chunk, logits in _logits(hidden, weight, chunk_bytes, tiled=tiled):
        parts.append(statistics(logits, labels[chunk], mapping))
    return parts


def _join(parts: list[Tensor], hidden: Tensor, group: ProcessGroup | None) -> TokenLogprobs:
    """Join the chunks' statistics, `[chunk, 4]`, with those of the other ranks, in the ranks' order.

    The order is the same wherever a row lies.
    """
    if parts:
        own = torch.cat(parts)
    else:
        own = hidden.new_empty(0, 4, dtype=torch.float32)

    if group is None:
        return finish(own[None])
    everyones = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    wait_for_ranks(dist.all_gather, everyones, own, group=group)
    return finish(torch.stack(everyones))


class _VocabLogprobs(torch.autograd.Function):
    """Keeps the logits if they are few, and overwrites them with their gradient in the backward pass."""

    @staticmethod
    def forward(
        ctx,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        mapping: LogitsMap,
        group: ProcessGroup | None,
        tiled: bool,
        weight_gradients: WeightGradients | None,
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies, float32 `[T]` each."""
        ctx.kept = None
        num_bytes = len(hidden) * len(weight) * hidden.itemsize
        if num_bytes <= budget_of(hidden).kept_bytes:
            out = hidden.new_empty(len(hidden), len(weight))
            ctx.kept = _product(hidden, weight, tiled, out)
            parts = [statistics(ctx.kept, labels, mapping)]
        else:
            parts = _chunks_statistics(hidden, weight, labels, mapping, tiled)

        found = _join(parts, hidden, group)
        ctx.save_for_backward(hidden, weight, labels, *found)
        ctx.mapping = mapping
        ctx.group = group
        ctx.weight_gradients = weight_gradients
        # A gradient that nobody asked for is None.
        ctx.set_materialize_grads(False)
        return found.logprobs, found.entropy

    @staticmethod
    def backward(ctx, grad_logprobs: Tensor | None, grad_entropy: Tensor | None):
        """Return the gradients of hidden states and weight, from those of the outputs, `[T]` or None."""
        hidden, weight, labels, *rows = ctx.saved_tensors
        sums = _Gradients(hidden, weight, ctx.needs_input_grad, ctx.weight_gradients)
        for chunk, logits in _kept_or_made(ctx, hidden, weight):
            found = TokenLogprobs(*(row[chunk] for row in rows))
            grad_logits = gradient_(
                logits,
                labels[chunk],
                ctx.mapping,
                found,
                _rows_of(grad_logprobs, chunk),
                _rows_of(grad_entropy, chunk),
            )
            sums.add(chunk, grad_logits)

        grad_hidden = sums.of_hidden(ctx.group)
        grad_weight = sums.of_weight()
        return grad_hidden, grad_weight, None, None, None, None, None


def _rows_of(gradient: Tensor | None, chunk: slice) -> Tensor | None:
    if gradient is None:
        return None
    return gradient[chunk]


def _kept_or_made(ctx, hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Return chunks and their logits, which the caller may overwrite.

    Kept logits are given away: a second backward pass computes them again.
    """
    kept = ctx.kept
    ctx.kept = None
    if kept is None:
        return _logits(hidden, weight, max(budget_of(hidden)), tiled=False)
    everything = slice(0, len(hidden))
    return iter([(everything, kept)])


class _Gradients:
    """The gradients of hidden states and weight, from the gradients of chunks of logits.

    Shapes: hidden `[T, H]`, weight `[V_part, H]`.
    """

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        needed: Sequence[bool],
        weight_gradients: WeightGradients | None,
    ) -> None:
        """`needed` says whether the gradients of hidden states and of the weight are."""
        self._hidden = hidden
        self._weight = weight
        self._weight_gradients = weight_gradients
        self._of_hidden = torch.empty_like(hidden) if needed[0] else None
        self._needs_weight = needed[1]
        self._of_weight: Tensor | None = None
        if weight_gradients is not None:
            self._needs_weight = True
            self._of_weight = weight_gradients.sum_of(weight)

    def add(self, chunk: slice, grad_logits: Tensor) -> None:
        """Add the gradients that follow from those of a chunk's logits, `[chunk, V_part]`."""
        if self._of_hidden is not None:
            torch.mm(grad_logits, self._weight, out=self._of_hidden[chunk])
        if self._needs_weight:
            self._add_to_weight(grad_logits.t(), self._hidden[chunk])

    def _add_to_weight(self, grad_logits: Tensor, hidden: Tensor) -> None:
        """Add `grad_logits @ hidden`: `[V_part, chunk]` and `[chunk, H]`."""
        if self._of_weight is not None:
            add_product_(self._of_weight, grad_logits, hidden)
            return
        product = torch.mm(grad_logits, hidden)
        is_only_chunk = len(hidden) == len(self._hidden)
        # Several chunks are summed in float32: small ones would be lost in a large sum.
        self._of_weight = product if is_only_chunk else product.float()

    def of_hidden(self, group: ProcessGroup | None) -> Tensor | None:
        """Return the gradient of the hidden states, `[T, H]`, summed over the ranks' parts of the vocabulary.

        None if it is not needed.
        """
        if self._of_hidden is None:
            return None
        return all_reduce(self._of_hidden, group)

    def of_weight(self) -> Tensor | None:
        """Return the gradient of the weight, `[V_part, H]`.

        None if it is not needed, or has been added to the sum in `weight_gradients`.
        """
        if self._weight_gradients is not None:
            self._weight_gradients.added(self._weight)
            return None

        if not self._needs_weight:
            return None
        if self._of_weight is None:
            return torch.zeros_like(self._weight)
        return self._of_weight.to(self._weight.dtype)
