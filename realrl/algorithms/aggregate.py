"""What each token counts in the loss of the whole global batch."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.choices import Aggregation
from realrl.algorithms.normalise import Reduce


def token_weights(
    loss_mask: Tensor, cu_seqlens: Tensor, reduce: Reduce, *, aggregation: Aggregation, max_new_tokens: int
) -> Tensor:
    """Weights by which a sum over tokens becomes the loss, whoever holds which of them.

    `token`: the mean over all response tokens (DAPO, arXiv:2503.14476, sec. 3.3). `sequence`: the mean over
    sequences of each one's mean (GRPO, arXiv:2402.03300, eq. 3). `constant`: the sum over `max_new_tokens`
    times the number of sequences, so that length does not matter (Dr.GRPO, arXiv:2503.20783, sec. 3.2). A
    sequence all of whose tokens are masked out does not count.

    Shapes: loss_mask bool `[T]`, cu_seqlens int32 `[B+1]`; returns float32 `[T]`, 0 outside the mask.
    Collective: over the ranks of `reduce`.
    """
    lengths = cu_seqlens.diff().to(loss_mask.device)
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    own = torch.zeros(len(lengths), dtype=torch.double, device=lengths.device)
    own = own.index_add(0, sequence, loss_mask.double())
    num_tokens, num_sequences = reduce(torch.stack((own.sum(), (own > 0).double().sum()))).clamp(min=1)
    if aggregation == "token":
        weights = torch.ones_like(sequence, dtype=torch.double) / num_tokens
    elif aggregation == "sequence":
        weights = 1 / (num_sequences * own.clamp(min=1))[sequence]
    elif aggregation == "constant":
        weights = torch.ones_like(sequence, dtype=torch.double) / (num_sequences * max_new_tokens)
    else:
        raise ValueError(f"aggregation must be token, sequence or constant, got {aggregation!r}")
    return (weights * loss_mask).float()
