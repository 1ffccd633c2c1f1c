"""Log-probabilities of tokens from hidden states, the vocabulary spread over tensor-parallel ranks.

The logits of a long batch are far larger than anything else in the model. They are made in chunks of tokens,
in the type of the hidden states, and never all together unless they are few.
Shapes: T tokens, H hidden size, V_part this rank's rows of the output weight, padding included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.ops.linear import WeightGradients, add_product_, tiled_product
from realrl.ops.logits import LogitsMap, TokenLogprobs, finish, gradient_, statistics
from realrl.parallel.groups import all_reduce


class LogitsBudget(NamedTuple):
    """The most bytes of logits that a device holds at a time."""

    chunk_bytes: int
    """In a pass that keeps none: enough tokens for a product to be efficient."""
    kept_bytes: int
    """From the forward to the backward pass, which else makes them again, as many at a time: to add up the
    chunks' gradients of the weight costs as much as some hundred tokens' products."""


LOGITS_BUDGETS = {"cpu": LogitsBudget(64 << 20, 256 << 20), "cuda": LogitsBudget(1 << 30, 4 << 30)}
"""By the type of the device. On CUDA 1 GiB is 3,500 rows of a vocabulary of 152,000: they fill a product."""


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
    """Each label's log-probability, and on request the entropy, of softmax(hidden @ weight / temperature).

    Differentiable in `hidden` and `weight_part`. A label outside the vocabulary has -inf. `tiled`: a token's
    results depend on that token alone, bit for bit. `weight_gradients`: takes the gradient of `weight_part`,
    at once, as logits are not kept.

    Shapes: hidden `[T, H]`, the same on every rank of `group`; weight_part `[V_part, H]`, whose first
        `num_real` rows are real, V_part the same on every rank; labels int64 `[T]`; returns float32 `[T]`.
    Collective: over `group`, forward and backward.
    """
    first = 0 if group is None else dist.get_rank(group) * len(weight_part)
    mapping = LogitsMap(first=first, num_real=max(num_real, 0), temperature=temperature, softcap=softcap)
    hidden = hidden.contiguous()
    if torch.is_grad_enabled() and (hidden.requires_grad or weight_part.requires_grad):
        if weight_gradients is not None:
            weight_part = weight_part.detach()
        logprobs, of_entropy = _VocabLogprobs.apply(
            hidden, weight_part, labels, mapping, group, tiled, weight_gradients
        )
    else:
        made = _logits(hidden, weight_part, budget_of(hidden).chunk_bytes, tiled=tiled)
        parts = [statistics(x, labels[chunk], mapping) for chunk, x in made]
        logprobs, of_entropy, _ = _join(parts, hidden, group)
    return logprobs, of_entropy if entropy else None


def label_logprobs(
    logits_part: Tensor,
    labels: Tensor,
    group: ProcessGroup | None,
    *,
    num_real: int,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Tensor:
    """Each label's log-probability from logits that are there, as `vocab_logprobs` gives it, bit for bit.

    Shapes: logits_part `[T, V_part]`; returns float32 `[T]`.
    Collective: over `group`.
    """
    first = 0 if group is None else dist.get_rank(group) * logits_part.shape[1]
    mapping = LogitsMap(first=first, num_real=max(num_real, 0), temperature=temperature, softcap=softcap)
    return _join([statistics(logits_part, labels, mapping)], logits_part, group).logprobs


def budget_of(hidden: Tensor) -> LogitsBudget:
    """For logits on the device of some hidden states."""
    return LOGITS_BUDGETS[hidden.device.type]


def token_chunks(num_tokens: int, row_bytes: int, chunk_bytes: int) -> list[slice]:
    """Even chunks of tokens whose logits fit in `chunk_bytes`."""
    most = max(chunk_bytes // row_bytes, 1)
    size = -(-num_tokens // max(-(-num_tokens // most), 1))
    return [slice(start, min(start + size, num_tokens)) for start in range(0, num_tokens, size or 1)]


def _logits(
    hidden: Tensor, weight: Tensor, chunk_bytes: int, *, tiled: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """The logits of one chunk after the other, all in the same memory."""
    chunks = token_chunks(len(hidden), len(weight) * hidden.itemsize, chunk_bytes)
    buffer = hidden.new_empty(chunks[0].stop if chunks else 0, len(weight))
    for chunk in chunks:
        yield chunk, _product(hidden[chunk], weight, tiled, buffer[: chunk.stop - chunk.start])


def _product(hidden: Tensor, weight: Tensor, tiled: bool, out: Tensor) -> Tensor:
    return out.copy_(tiled_product(hidden, weight)) if tiled else torch.mm(hidden, weight.t(), out=out)


def _join(parts: list[Tensor], hidden: Tensor, group: ProcessGroup | None) -> TokenLogprobs:
    """Chunks' statistics, with those of the other ranks in the ranks' order, whatever a row's place."""
    own = torch.cat(parts) if parts else hidden.new_empty(0, 4, dtype=torch.float32)
    if group is None:
        return finish(own[None])
    everyones = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyones, own, group=group)
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
        ctx.kept = None
        if len(hidden) * len(weight) * hidden.itemsize <= budget_of(hidden).kept_bytes:
            ctx.kept = _product(hidden, weight, tiled, hidden.new_empty(len(hidden), len(weight)))
            parts = [statistics(ctx.kept, labels, mapping)]
        else:
            made = _logits(hidden, weight, budget_of(hidden).chunk_bytes, tiled=tiled)
            parts = [statistics(x, labels[chunk], mapping) for chunk, x in made]
        ctx.save_for_backward(hidden, weight, labels, *(found := _join(parts, hidden, group)))
        ctx.mapping, ctx.group, ctx.weight_gradients = mapping, group, weight_gradients
        ctx.set_materialize_grads(False)
        return found.logprobs, found.entropy

    @staticmethod
    def backward(ctx, grad_logprobs: Tensor | None, grad_entropy: Tensor | None):
        hidden, weight, labels, *rows = ctx.saved_tensors
        sums = _Gradients(hidden, weight, ctx.needs_input_grad, ctx.weight_gradients)
        for chunk, logits in _kept_or_made(ctx, hidden, weight):
            found = TokenLogprobs(*(row[chunk] for row in rows))
            # A gradient that nobody asked for is None.
            of_logprobs = None if grad_logprobs is None else grad_logprobs[chunk]
            of_entropy = None if grad_entropy is None else grad_entropy[chunk]
            of_logits = gradient_(logits, labels[chunk], ctx.mapping, found, of_logprobs, of_entropy)
            sums.add(chunk, of_logits)
        return sums.of_hidden(ctx.group), sums.of_weight(), None, None, None, None, None


def _kept_or_made(ctx, hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Logits that nobody needs any more; a second backward pass finds none kept, and makes them again."""
    kept, ctx.kept = ctx.kept, None
    if kept is not None:
        return iter([(slice(0, len(hidden)), kept)])
    return _logits(hidden, weight, max(budget_of(hidden)))


class _Gradients:
    """The gradients of hidden states and weight, from those of chunks of logits."""

    def __init__(
        self,
        hidden: Tensor,
        weight: Tensor,
        needed: Sequence[bool],
        weight_gradients: WeightGradients | None,
    ) -> None:
        self._hidden, self._weight, self._weight_gradients = hidden, weight, weight_gradients
        self._of_hidden = torch.empty_like(hidden) if needed[0] else None
        self._needs_weight, self._of_weight = needed[1], None
        if weight_gradients is not None:
            self._needs_weight, self._of_weight = True, weight_gradients.sum_of(weight)

    def add(self, chunk: slice, grad_logits: Tensor) -> None:
        if self._of_hidden is not None:
            torch.mm(grad_logits, self._weight, out=self._of_hidden[chunk])
        if self._needs_weight:
            self._add_to_weight(grad_logits.t(), self._hidden[chunk])

    def _add_to_weight(self, grad_logits: Tensor, hidden: Tensor) -> None:
        """In float32 if there are several, so that none is lost beside the sum."""
        if self._of_weight is None:
            product = torch.mm(grad_logits, hidden)
            self._of_weight = product if len(hidden) == len(self._hidden) else product.float()
        else:
            add_product_(self._of_weight, grad_logits, hidden)

    def of_hidden(self, group: ProcessGroup | None) -> Tensor | None:
        """Summed over the ranks, each of which has a part of the vocabulary."""
        return None if self._of_hidden is None else all_reduce(self._of_hidden, group)

    def of_weight(self) -> Tensor | None:
        """None where it is not needed, or is in the sum of the weight's gradients."""
        if self._weight_gradients is not None:
            self._weight_gradients.added(self._weight)
            return None
        if not self._needs_weight:
            return None
        return (
            torch.zeros_like(self._weight)
            if self._of_weight is None
            else self._of_weight.to(self._weight.dtype)
        )
