"""Losses of the policy over packed tokens.

A token's weight in the loss is in `weights` (see `aggregate.token_weights`). The losses of micro-batches and
data-parallel ranks therefore add up to the loss of the global batch. A micro-batch has whole sequences.

Shapes: every tensor is `[T]`, T = packed tokens of a micro-batch, except `responses`, the indices of the R
response tokens: int64 `[R]`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from realrl.algorithms.choices import Importance, Level, Surrogate
from realrl.ops.upload import upload

MAX_LOG_RATIO = 20.0
"""The bound on log-ratios before `exp`, as in verl: e^89 would overflow float32."""


@dataclass(frozen=True)
class PolicyLoss:
    """The loss of one micro-batch, a scalar, and statistics of its response tokens, `[R]` each."""

    loss: Tensor
    ratio: Tensor
    """The probability under the policy divided by that under the policy before the update."""
    clipped: Tensor
    """Whether a clip bound determined the loss."""
    approx_kl: Tensor
    """The k3 estimate of KL(policy before the update || policy)."""


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
    """Return minus the weighted sum of the tokens' surrogate objectives.

    The ratio may fall below 1 by `clip_low` and rise above 1 by `clip_high`. It is each token's own ratio, or
    the geometric mean of its sequence. The surrogate `ppo` clips the ratio if it has moved too far in the
    direction of the advantage. With `dual_clip` (0: none), it also bounds the ratio from above where the
    advantage is negative. The surrogate `cispo` uses the clipped ratio as a constant weight, so that every
    token keeps its gradient.

    Shapes: cu_seqlens int32 `[B+1]`.
    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; separate bounds, Yu et al. 2025, arXiv:2503.14476,
        eq. 8 (DAPO); dual clip, Ye et al. 2020, arXiv:1912.09729, eq. 5; sequences' ratios, Zheng et al.
        2025, arXiv:2507.18071, eq. 13 (GSPO-token); CISPO, MiniMax 2025, arXiv:2506.13585, eq. 4.
    """
    new = logprobs[responses]
    old = old_logprobs[responses]
    advantage = advantages[responses]
    weight = weights[responses]
    log_ratio = (new - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    kl = (log_ratio.exp() - 1 - log_ratio).detach()
    if level == "sequence":
        # The value is the sequence's, and the gradient is each token's own.
        means = sequence_means(log_ratio.detach(), responses, cu_seqlens)
        log_ratio = means + (new - new.detach())
    ratio = log_ratio.exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    if surrogate == "cispo":
        objective = bounded.detach() * advantage * new
        clipped = bounded != ratio
    else:
        objective, clipped = _ppo_objective(ratio, bounded, advantage, dual_clip)
    loss = -(objective * weight).sum()
    return PolicyLoss(loss, ratio.detach(), clipped, kl)


def _ppo_objective(
    ratio: Tensor, bounded: Tensor, advantage: Tensor, dual_clip: float
) -> tuple[Tensor, Tensor]:
    """Return PPO's objective of each response token, and whether a bound determined it."""
    objective = torch.minimum(ratio * advantage, bounded * advantage)
    clipped = bounded * advantage < ratio * advantage
    if not dual_clip:
        return objective, clipped
    floor = dual_clip * advantage
    is_bad = advantage < 0
    clipped |= is_bad & (objective < floor)
    objective = torch.where(is_bad, torch.maximum(objective, floor), objective)
    return objective, clipped


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
    """Return the importance weights `prox / behaviour` of tokens that another policy sampled.

    A weight above `cap` is truncated to it (`truncate`), or excludes the token or its sequence (`mask`). A
    sequence's weight is the product of its tokens' weights. With `none`, every weight is 1.

    Shapes: returns float `[T]`, 0 outside the mask.
    Source: decoupled PPO, Hilton et al. 2021, arXiv:2110.00641, eq. 4; Fu et al. 2025, arXiv:2505.24298, eq.
        5 (AReaL); truncated, Espeholt et al. 2018, arXiv:1802.01561, sec. 4.1 (V-trace).
    """
    if kind == "none":
        return loss_mask.to(logprobs.dtype)
    log_ratio = (prox_logprobs - logprobs)[loss_mask].double()
    if level == "sequence":
        responses = loss_mask.nonzero()[:, 0]
        log_ratio, _ = _by_sequence(log_ratio, responses, cu_seqlens)
    weight = log_ratio.exp()
    if kind == "truncate":
        weight = weight.clamp(max=cap)
    else:
        weight = weight.where(weight <= cap, 0.0)
    outside = torch.zeros_like(logprobs)
    return outside.masked_scatter(loss_mask, weight.to(logprobs.dtype))


def sequence_means(x: Tensor, responses: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Return the mean over its sequence for each response token.

    Shapes: x and responses `[R]`; returns `[R]`.
    """
    total, count = _by_sequence(x, responses, cu_seqlens)
    return total / count


def _by_sequence(x: Tensor, responses: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Return each response token's sum over its sequence, and the number of response tokens in it."""
    (ends,) = upload([cu_seqlens[1:].long()], x.device)
    sequence = torch.bucketize(responses, ends, right=True)
    values = torch.stack((x, torch.ones_like(x)), dim=1)
    sums = values.new_zeros(len(ends), 2).index_add(0, sequence, values)
    total, count = sums[sequence].unbind(1)
    return total, count
