"""KL divergence between a policy and its reference, from tokens that the policy sampled.

Shapes: B sequences, T packed tokens; `loss_mask` bool `[T]` marks response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.choices import Estimator

MAX_K3_LOG_RATIO = 5.0
"""The log-ratio beyond which k3 continues as its tangent.

A token that is likely under the reference but very unlikely under the policy would otherwise have a gradient
of e^log-ratio, which outweighs all other tokens.
"""


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator = "k1") -> Tensor:
    """Return the estimate of KL(policy || reference) at each token.

    k1 is unbiased and may be negative. k2 is biased and has a low variance. k3 is unbiased and
    never negative. In a loss, the expected gradient of k1 is zero, and that of k2 is the divergence's.

    Shapes: log-probabilities `[T]`; returns `[T]`.
    Raises:
        ValueError: an unknown estimator.
    Source: J. Schulman, "Approximating KL Divergence", 2020.
    """
    log_ratio = ref_logprobs - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    if estimator == "k3":
        near = log_ratio.clamp(max=MAX_K3_LOG_RATIO)
        beyond = log_ratio - near
        return near.exp() * (1 + beyond) - 1 - log_ratio
    raise ValueError(f"estimator must be k1, k2 or k3, got {estimator!r}")


def last_response_tokens(loss_mask: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Return the position of each sequence's last response token, or -1 without one.

    Shapes: cu_seqlens int32 `[B+1]`; returns int64 `[B]`.
    """
    device = loss_mask.device
    lengths = cu_seqlens.diff().to(device)
    sequences = torch.arange(len(lengths), device=device)
    sequence = torch.repeat_interleave(sequences, lengths)
    tokens = loss_mask.nonzero().squeeze(1)
    none = torch.full(
        (len(lengths),),
        -1,
        dtype=torch.long,
        device=device,
    )
    return none.scatter_reduce(0, sequence[tokens], tokens, "amax")
