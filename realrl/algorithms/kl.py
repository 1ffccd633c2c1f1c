"""KL divergence between a policy and its reference, from tokens that the policy sampled.

Shapes: B sequences, T packed tokens; `loss_mask` bool `[T]` marks response tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.choices import Estimator

MAX_K3_LOG_RATIO = 5.0
"""The log-ratio beyond which k3 goes on as its tangent: one token that the policy hardly ever takes, but the
reference does, would else have a gradient of e^log-ratio, and outweigh all others."""


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator = "k1") -> Tensor:
    """Estimate of KL(policy || reference) at each token.

    k1 is unbiased and may be negative; k2 is biased, of low variance; k3 is unbiased and never negative. In a
    loss, the gradient of k1 is zero on average, that of k2 is the divergence's.

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


def kl_penalised_rewards(
    task_rewards: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor,
    loss_mask: Tensor,
    cu_seqlens: Tensor,
    *,
    kl_coef: float,
    estimator: Estimator = "k1",
) -> Tensor:
    """Reward of each token: `-kl_coef * KL` on response tokens, and the task's reward on the last of them.

    A sequence without response tokens gets no reward: no token could be credited with it.

    Shapes: task_rewards `[B]`, logprobs and ref_logprobs `[T]`, cu_seqlens int32 `[B+1]`; returns `[T]`.
    Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 2.
    """
    kl = kl_estimate(logprobs.detach(), ref_logprobs.detach(), estimator)
    rewards = torch.where(loss_mask, -kl_coef * kl, 0.0)
    last = last_response_tokens(loss_mask, cu_seqlens)
    responded = last >= 0
    return rewards.index_add(0, last[responded], task_rewards[responded].to(rewards.dtype))


def last_response_tokens(loss_mask: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Position of each sequence's last response token, -1 where it has none; int64 `[B]`."""
    lengths = cu_seqlens.diff().to(loss_mask.device)
    sequence = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    tokens = loss_mask.nonzero().squeeze(1)
    none = torch.full((len(lengths),), -1, dtype=torch.long, device=loss_mask.device)
    return none.scatter_reduce(0, sequence[tokens], tokens, "amax")
