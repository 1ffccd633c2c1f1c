"""What recipes on pairs of responses share: the loss of scores, and what it reports."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.preference import bradley_terry_loss
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, Mean, Metrics
from realrl.ops.upload import upload


def num_pairs(ctx: CallContext, batch: PackedBatch) -> int:
    """Return the pairs of a batch on all ranks. Collective: over the ranks of `ctx.reduce`."""
    return int(ctx.reduce(torch.tensor(len(batch))))


def pair_losses(scores: Tensor) -> tuple[Tensor, Metrics]:
    """Return each pair's loss `[P]`, of scores `[2 P]`, the chosen response's first, and what it reports."""
    chosen = scores[0::2]
    rejected = scores[1::2]
    losses = bradley_terry_loss(chosen, rejected)
    margins = (chosen - rejected).detach()
    number = len(margins)
    return losses, {
        "loss": Mean(losses.detach().double().sum(), number),
        "accuracy": Mean((margins > 0).sum(), number),
        "margin": Mean(margins.double().sum(), number),
    }


def response_sums(logprobs: Tensor, sequences: PackedBatch) -> Tensor:
    """Return the log-probability of each response: `[2 P]`."""
    masked = torch.where(sequences["loss_mask"], logprobs, 0.0)
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
