"""PPO's two losses over packed tokens (Schulman et al. 2017, arXiv:1707.06347).

Shapes: every tensor is `[T]`, T = packed tokens of a micro-batch; `loss_mask` (bool) marks response tokens.
Each loss and statistic is a sum divided by `num_tokens`, the response tokens of the whole global batch, so
that it adds up over micro-batches and dp ranks, however they are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """One micro-batch's share of the policy's loss and statistics, all scalars."""

    loss: Tensor
    clip_fraction: Tensor
    """Tokens at which the clipped ratio gave the loss."""
    approx_kl: Tensor
    """KL(old policy || policy), by the k3 estimator on the old policy's samples."""


@dataclass(frozen=True)
class ValueLoss:
    """One micro-batch's share of the critic's loss and statistics, all scalars."""

    loss: Tensor
    clip_fraction: Tensor
    """Tokens at which the clipped value gave the loss."""


def ppo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    loss_mask: Tensor,
    *,
    clip_eps: float,
    num_tokens: float,
) -> PolicyLoss:
    """Clipped surrogate, per response token of the global batch.

    Source: arXiv:1707.06347, eq. 7.
    """
    logprobs, old_logprobs, advantages = (x[loss_mask] for x in (logprobs, old_logprobs, advantages))
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1 - clip_eps, 1 + clip_eps) * advantages
    surrogate = torch.minimum(unclipped, clipped)
    kl = (ratio - 1 - log_ratio).detach()
    return PolicyLoss(
        loss=-surrogate.sum() / num_tokens,
        clip_fraction=(clipped < unclipped).sum() / num_tokens,
        approx_kl=kl.sum() / num_tokens,
    )


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    loss_mask: Tensor,
    *,
    clip_eps: float,
    num_tokens: float,
) -> ValueLoss:
    """Half the squared error, of the value or of the value clipped to its old one +- `clip_eps`: the worse.

    Source: the PPO authors' code (github openai/baselines, ppo2/model.py).
    """
    values, old_values, returns = (x[loss_mask] for x in (values, old_values, returns))
    near_old = old_values + (values - old_values).clamp(-clip_eps, clip_eps)
    unclipped, clipped = (values - returns).square(), (near_old - returns).square()
    return ValueLoss(
        loss=0.5 * torch.maximum(unclipped, clipped).sum() / num_tokens,
        clip_fraction=(clipped > unclipped).sum() / num_tokens,
    )
