"""Losses of the policy over packed tokens.

Shapes: every tensor is `[T]`, T = packed tokens of a micro-batch; `responses`, int64 `[R]`, are the response
tokens, and `weights` says what each counts in the loss (`aggregate.token_weights`), so that losses add up
over micro-batches and data-parallel ranks, however they are cut. A micro-batch has whole sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from realrl.algorithms.choices import Importance, Level, Surrogate
from realrl.ops.upload import upload

MAX_LOG_RATIO = 20.0
"""Bound on a log-ratio before it is exponentiated, as in verl: e^89 would overflow float32."""


@dataclass(frozen=True)
class PolicyLoss:
    """One micro-batch's share of the loss, a scalar, and what it was at each response token, `[R]`."""

    loss: Tensor
    ratio: Tensor
    """Probability under the policy over that under the policy before the update."""
    clipped: Tensor
    """Whether a bound on the ratio gave the loss."""
    approx_kl: Tensor
    """KL(policy before the update || policy), by the k3 estimator on its samples."""


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    responses: Tensor,
    weights: Tensor,
    cu_seqlens: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
    level: Level = "token",
    surrogate: Surrogate = "ppo",
) -> PolicyLoss:
    """Minus the weighted sum of the tokens' surrogate objectives.

    `clip_low` and `clip_high` are how far the ratio may fall below and rise above 1. The ratio is each
    token's own, or its sequence's geometric mean. With the surrogate `ppo` it is clipped where it has gone
    too far in the direction of the advantage, and with `dual_clip` (0: none) also from above where the
    advantage is negative; with `cispo` the clipped ratio is a mere weight, and every token keeps its
    gradient.

    Shapes: cu_seqlens int32 `[B+1]`. Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; bounds apart, Yu
    et al. 2025, arXiv:2503.14476, eq. 8
        (DAPO); dual clip, Ye et al. 2020, arXiv:1912.09729, eq. 5; sequences' ratios, Zheng et al. 2025,
        arXiv:2507.18071, eq. 13 (GSPO-token); CISPO, MiniMax 2025, arXiv:2506.13585, eq. 4.
    """
    new, old, advantage, weight = (x[responses] for x in (logprobs, old_logprobs, advantages, weights))
    log_ratio = (new - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    kl = (log_ratio.exp() - 1 - log_ratio).detach()
    if level == "sequence":
        # The value is the sequence's, the gradient each token's own.
        log_ratio = sequence_means(log_ratio.detach(), responses, cu_seqlens) + (new - new.detach())
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    if surrogate == "cispo":
        objective = bounded.detach() * advantage * new
        clipped = bounded != ratio
    else:
        objective = torch.minimum(ratio * advantage, bounded * advantage)
        clipped = bounded * advantage < ratio * advantage
        if dual_clip:
            floor = dual_clip * advantage
            clipped |= (advantage < 0) & (objective < floor)
            objective = torch.where(advantage < 0, torch.maximum(objective, floor), objective)
    return PolicyLoss(-(objective * weight).sum(), ratio.detach(), clipped, kl)


def importance_weights(
    prox_logprobs: Tensor,
    logprobs: Tensor,
    loss_mask: Tensor,
    cu_seqlens: Tensor,
    *,
    cap: float,
    level: Level = "token",
    kind: Importance = "truncate",
) -> Tensor:
    """The weight of a token drawn by another policy in an update of the proximal one: `prox / behaviour`.

    A weight above `cap` is truncated to it (`truncate`), or leaves the token, or its sequence, out (`mask`).
    A sequence's weight is the product of its tokens'. With `none`, every weight is 1.

    Shapes: float `[T]`, 0 outside the mask. Source: decoupled PPO, Hilton et al. 2021, arXiv:2110.00641, eq.
        4; Fu et al. 2025, arXiv:2505.24298, eq. 5 (AReaL); truncated, Espeholt et al. 2018,
        arXiv:1802.01561, sec. 4.1 (V-trace).
    """
    if kind == "none":
        return loss_mask.to(logprobs.dtype)
    log_ratio = (prox_logprobs - logprobs)[loss_mask].double()
    if level == "sequence":
        log_ratio = _by_sequence(log_ratio, loss_mask.nonzero()[:, 0], cu_seqlens)[0]
    weight = log_ratio.exp()
    weight = weight.clamp(max=cap) if kind == "truncate" else weight.where(weight <= cap, 0.0)
    return torch.zeros_like(logprobs).masked_scatter(loss_mask, weight.to(logprobs.dtype))


def sequence_means(x: Tensor, responses: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Each response token's mean over its sequence.

    Shapes: x and responses `[R]`, as of the module; returns `[R]`.
    """
    total, count = _by_sequence(x, responses, cu_seqlens)
    return total / count


def _by_sequence(x: Tensor, responses: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """For each response token, the sum over its sequence and how many tokens that has."""
    (ends,) = upload([cu_seqlens[1:].long()], x.device)
    sequence = torch.bucketize(responses, ends, right=True)
    values = torch.stack((x, torch.ones_like(x)), dim=1)
    sums = values.new_zeros(len(ends), 2).index_add(0, sequence, values)
    total, count = sums[sequence].unbind(1)
    return total, count
