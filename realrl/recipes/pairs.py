"""What recipes on pairs of responses share: their keys, the loss of scores, and what it reports."""

from __future__ import annotations

from torch import Tensor

from realrl.algorithms.preference import bradley_terry_loss
from realrl.api.batch import PackedBatch
from realrl.api.recipe import Mean, Metrics
from realrl.ops.upload import upload

PAIR = ("input_ids", "loss_mask", "chosen_tokens")
PER_SAMPLE = ("chosen_tokens",)


def pair_losses(scores: Tensor) -> tuple[Tensor, Metrics]:
    """Each pair's loss `[P]`, of scores `[2 P]`, the chosen response's first."""
    chosen, rejected = scores[0::2], scores[1::2]
    losses, margins = bradley_terry_loss(chosen, rejected), (chosen - rejected).detach()
    number = len(margins)
    return losses, {
        "loss": Mean(losses.detach().double().sum(), number),
        "accuracy": Mean((margins > 0).sum(), number),
        "margin": Mean(margins.double().sum(), number),
    }


def scores_at_ends(values: Tensor, sequences: PackedBatch) -> Tensor:
    """A reward model's score of each sequence: its value at the last token."""
    (last,) = upload([sequences.cu_seqlens[1:].long() - 1], values.device)
    return values[last]
