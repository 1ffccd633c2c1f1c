"""Weights of tokens in the loss of the whole global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.choices import Aggregation
from realrl.algorithms.normalise import Reduce


def token_weights(
    loss_mask: Tensor,
    cu_seqlens: Tensor,
    reduce: Reduce,
    *,
    aggregation: Aggregation,
    max_new_tokens: int,
    groups: Tensor,
    num_groups: int,
) -> Tensor:
    """Return the weights for which a weighted sum over tokens is the loss, however ranks share the tokens.

    `token`: the mean over all response tokens (DAPO, arXiv:2503.14476, sec. 3.3). `sequence`: the mean over
    sequences of each one's mean (GRPO, arXiv:2402.03300, eq. 3). `prompt`: the mean over prompts of the mean
    over the tokens of all their responses (DAPO, eq. 8; ScaleRL, arXiv:2510.13786, sec. 3.2). `constant`: the
    sum over `max_new_tokens` times the number of sequences, so that length does not matter (Dr.GRPO,
    arXiv:2503.20783, sec. 3.2). Sequences and prompts without a token in the mask are not counted.

    Shapes: loss_mask bool `[T]`, cu_seqlens int32 `[B+1]`; groups int64 `[B]` from 0 to `num_groups - 1`, the
        prompt of each sequence, of which ranks may share the sequences; returns float32 `[T]`, 0 outside the
        mask.
    Collective: over the ranks of `reduce`.
    Raises:
        ValueError: an unknown aggregation.
    """
    device = loss_mask.device
    lengths = cu_seqlens.diff().to(device)
    sequences = torch.arange(len(lengths), device=device)
    sequence = torch.repeat_interleave(sequences, lengths)
    nothing = torch.zeros(len(lengths), dtype=torch.double, device=device)
    own = nothing.index_add(0, sequence, loss_mask.double())
    has_tokens = (own > 0).double()
    totals = reduce(torch.stack((own.sum(), has_tokens.sum())))
    # A batch without response tokens must not divide by zero.
    num_tokens, num_sequences = totals.clamp(min=1)
    if aggregation == "token":
        ones = torch.ones_like(sequence, dtype=torch.double)
        weights = ones / num_tokens
    elif aggregation == "sequence":
        denominator = num_sequences * own.clamp(min=1)
        weights = 1 / denominator[sequence]
    elif aggregation == "prompt":
        of_groups = torch.zeros(num_groups, dtype=torch.double, device=device)
        in_group = reduce(of_groups.index_add(0, groups, own))
        num_prompts = (in_group > 0).double().sum().clamp(min=1)
        denominator = num_prompts * in_group.clamp(min=1)
        weights = 1 / denominator[groups][sequence]
    elif aggregation == "constant":
        ones = torch.ones_like(sequence, dtype=torch.double)
        weights = ones / (num_sequences * max_new_tokens)
    else:
        raise ValueError(f"aggregation must be token, sequence, prompt or constant, got {aggregation!r}")
    counted: Tensor = weights * loss_mask
    return counted.float()
