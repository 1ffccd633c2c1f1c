"""What recipes on pairs of responses share: what a loss is computed from, and what is reported of it.

log-probabilities of tokens ──responses_of()──▶ Responses ──a recipe's losses──▶ PairLosses ──▶ loss, metrics
values of tokens ──scores_at_ends()──▶ scores ───────────────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.metrics import Metric
from realrl.api.recipe import CallContext, Mean, Metrics
from realrl.ops.upload import upload


@dataclass(frozen=True)
class Responses:
    """The responses of some pairs: the chosen one of each pair, then its rejected one.

    Shapes: R = 2 P responses of P pairs.
    """

    logprobs: Tensor
    """The log-probability of each response by the model that learns: `[R]`."""
    by_reference: Tensor | None
    """The same by the reference, where there is one."""
    sequences: PackedBatch

    @cached_property
    def num_tokens(self) -> Tensor:
        """The tokens of each response: float `[R]`."""
        ones = torch.ones_like(self.sequences["loss_mask"], dtype=self.logprobs.dtype)
        return response_sums(ones, self.sequences)

    @property
    def ref_logprobs(self) -> Tensor:
        """The log-probability of each response by the reference: `[R]`."""
        assert self.by_reference is not None, "only a recipe with a reference asks for it"
        return self.by_reference

    @property
    def mean_logprobs(self) -> Tensor:
        """The mean over each response's tokens of `logprobs`: `[R]`."""
        return self.logprobs / self.num_tokens

    @property
    def mean_ref_logprobs(self) -> Tensor:
        """The mean over each response's tokens of `ref_logprobs`: `[R]`."""
        return self.ref_logprobs / self.num_tokens


@dataclass(frozen=True)
class PairLosses:
    """The losses of some pairs, and what is reported of them.

    Shapes: P pairs.
    """

    losses: Tensor
    """The loss of each pair: `[P]`."""
    scores: Tensor
    """What says which response of a pair is preferred: `[2 P]`, the chosen one's first."""
    terms: dict[str, Tensor] = field(default_factory=dict)
    """Parts of the losses that are reported as well, each `[P]`."""

    def metrics(self) -> Metrics:
        """Return the mean loss, the share of pairs with the right preference, and the mean margin."""
        chosen, rejected = sides(self.scores.detach())
        margins = chosen - rejected
        number = len(margins)
        metrics: dict[str, Metric] = {
            "loss": Mean(self.losses.detach().double().sum(), number),
            "accuracy": Mean((margins > 0).sum(), number),
            "margin": Mean(margins.double().sum(), number),
        }
        for name, term in self.terms.items():
            metrics[name] = Mean(term.detach().double().sum(), number)
        return metrics


def num_pairs(ctx: CallContext, batch: PackedBatch) -> int:
    """Return the pairs of a batch on all ranks. Collective: over the ranks of `ctx.reduce`."""
    return int(ctx.reduce(torch.tensor(len(batch))))


def sides(of_responses: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the chosen responses have, and what the rejected ones have: `[2 P]` to twice `[P]`."""
    return of_responses[0::2], of_responses[1::2]


def responses_of(logprobs: Tensor, sequences: PackedBatch) -> Responses:
    """Return the responses of sequences whose tokens have these log-probabilities, `[T]`."""
    own = response_sums(logprobs, sequences)
    ref = None
    if "ref_logprobs" in sequences.tokens:
        ref = response_sums(sequences["ref_logprobs"], sequences)
    return Responses(own, ref, sequences)


def response_sums(of_tokens: Tensor, sequences: PackedBatch) -> Tensor:
    """Return the sum over the tokens of each response: `[T]` to `[R]`."""
    masked = torch.where(sequences["loss_mask"], of_tokens, 0.0)
    if not len(sequences):
        return masked
    responses = [part.sum() for part in masked.split(sequences.lengths)]
    return torch.stack(responses)


def scores_at_ends(values: Tensor, sequences: PackedBatch) -> Tensor:
    """Return a reward model's score of each sequence: its value at the last token."""
    (last,) = upload(
        [sequences.cu_seqlens[1:].long() - 1],
        values.device,
    )
    return values[last]


def joined(of_microbatches: Sequence[Tensor]) -> Tensor:
    """Return what micro-batches have, end to end and on the CPU: `[R]`; without any, `[0]`."""
    if not of_microbatches:
        return torch.zeros(0)
    return torch.cat(list(of_microbatches)).cpu()
