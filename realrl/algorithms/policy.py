"""Losses of the policy over packed tokens, under the names of their papers.

    log-probabilities, advantages ── ResponseTokens ──▶ ppo_loss, gspo_loss, cispo_loss ──▶ PolicyLoss

A token's weight in the loss is in `weights` (see `aggregate.token_weights`). The losses of micro-batches and
data-parallel ranks therefore add up to the loss of the global batch. A micro-batch has whole sequences.

Shapes: R response tokens of a micro-batch, T packed tokens, B sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from realrl.ops.upload import upload

MAX_LOG_RATIO = 20.0
"""The bound on log-ratios before `exp`, as in verl: e^89 would overflow float32."""


@dataclass(frozen=True)
class ResponseTokens:
    """The response tokens of a micro-batch: `[R]` each, except `cu_seqlens`."""

    logprobs: Tensor
    """Under the policy that is trained: with a gradient."""
    old_logprobs: Tensor
    """Under the policy before the update."""
    advantages: Tensor
    weights: Tensor
    """What each token counts in the loss of the global batch."""
    responses: Tensor
    """The place of each token in the micro-batch: int64."""
    cu_seqlens: Tensor
    """Bounds of the micro-batch's sequences: int32 `[B+1]`."""

    @property
    def log_ratio(self) -> Tensor:
        """The log of the probability under the policy divided by that under the old one, bounded."""
        return (self.logprobs - self.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    @property
    def approx_kl(self) -> Tensor:
        """The k3 estimate of KL(policy before the update || policy), without a gradient."""
        log_ratio = self.log_ratio.detach()
        return log_ratio.exp() - 1 - log_ratio


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


TokenLoss = Callable[[ResponseTokens], Tensor]
"""A loss of a user's own: the loss of each response token, `[R]`, before its weight."""


def ppo_loss(
    tokens: ResponseTokens, *, clip_low: float, clip_high: float, dual_clip: float = 0.0
) -> PolicyLoss:
    """Return PPO's loss, which clips a ratio that has moved too far in the direction of its advantage.

    The ratio may fall below 1 by `clip_low` and rise above 1 by `clip_high`. With `dual_clip` (0: none), it
    is also bounded from above where the advantage is negative.

    Source: Schulman et al. 2017, arXiv:1707.06347, eq. 7; separate bounds, Yu et al. 2025, arXiv:2503.14476,
        eq. 8 (DAPO); dual clip, Ye et al. 2020, arXiv:1912.09729, eq. 5.
    """
    ratio = tokens.log_ratio.exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective, clipped = _clipped_objective(ratio, bounded, tokens.advantages)
    if dual_clip:
        floor = dual_clip * tokens.advantages
        is_bad = tokens.advantages < 0
        is_below = objective < floor
        raised = torch.maximum(objective, floor)
        clipped |= is_bad & is_below
        objective = torch.where(is_bad, raised, objective)
    loss = -(objective * tokens.weights).sum()
    return PolicyLoss(loss, ratio.detach(), clipped, tokens.approx_kl)


def gspo_loss(tokens: ResponseTokens, *, clip_low: float, clip_high: float) -> PolicyLoss:
    """Return GSPO's loss: PPO's, with the geometric mean of a response's ratios in place of each token's.

    The value of a ratio is its response's, and the gradient is each token's own.

    Source: Zheng et al. 2025, arXiv:2507.18071, eq. 13 (GSPO-token).
    """
    means = sequence_means(
        tokens.log_ratio.detach(),
        tokens.responses,
        tokens.cu_seqlens,
    )
    own_gradient = tokens.logprobs - tokens.logprobs.detach()
    ratio = (means + own_gradient).exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective, clipped = _clipped_objective(ratio, bounded, tokens.advantages)
    loss = -(objective * tokens.weights).sum()
    return PolicyLoss(loss, ratio.detach(), clipped, tokens.approx_kl)


def cispo_loss(tokens: ResponseTokens, *, clip_low: float, clip_high: float) -> PolicyLoss:
    """Return CISPO's loss: the clipped ratio is a constant weight, so that every token keeps its gradient.

    Source: MiniMax 2025, arXiv:2506.13585, eq. 4.
    """
    ratio = tokens.log_ratio.exp()
    bounded = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = bounded.detach() * tokens.advantages * tokens.logprobs
    loss = -(objective * tokens.weights).sum()
    return PolicyLoss(loss, ratio.detach(), bounded != ratio, tokens.approx_kl)


def sapo_loss(tokens: ResponseTokens, *, tau_positive: float, tau_negative: float) -> PolicyLoss:
    """Return SAPO's loss: a sigmoid of the ratio, in place of a bound, fades out tokens that have moved far.

    The objective of a ratio r is `4 / tau * sigmoid(tau * (r - 1)) * A`, whose slope at 1 is A. The
    temperature tau is that of tokens with a positive advantage, or of all others. Nothing counts as clipped.

    Source: Gao et al. 2025, arXiv:2511.20347, eq. 5 and 6.
    """
    ratio = tokens.log_ratio.exp()
    tau = torch.where(tokens.advantages > 0, tau_positive, tau_negative)
    gate = (tau * (ratio - 1)).sigmoid() * 4 / tau
    clipped = torch.zeros_like(ratio, dtype=torch.bool)
    loss = -(gate * tokens.advantages * tokens.weights).sum()
    return PolicyLoss(loss, ratio.detach(), clipped, tokens.approx_kl)


def gmpo_loss(tokens: ResponseTokens, *, clip_low: float, clip_high: float) -> PolicyLoss:
    """Return GMPO's loss: the geometric mean of a response's ratios, each of which is bounded on its own.

    A log-ratio may fall to `-clip_low` and rise to `clip_high`; only moves in the direction of the token's
    advantage are bounded. Every token of a response has a part in the gradient of the mean.

    Source: Zhao et al. 2025, arXiv:2507.20673, eq. 4.
    """
    log_ratio = tokens.log_ratio
    bounded = log_ratio.clamp(-clip_low, clip_high)
    is_good = tokens.advantages >= 0
    lesser = torch.minimum(log_ratio, bounded)
    greater = torch.maximum(log_ratio, bounded)
    pessimistic = torch.where(is_good, lesser, greater)
    means = sequence_means(pessimistic, tokens.responses, tokens.cu_seqlens)
    objective = means.exp() * tokens.advantages
    loss = -(objective * tokens.weights).sum()
    ratio = log_ratio.detach().exp()
    return PolicyLoss(loss, ratio, pessimistic != log_ratio, tokens.approx_kl)


def own_loss(tokens: ResponseTokens, token_loss: TokenLoss) -> PolicyLoss:
    """Return the loss of a user's own function; what it clips is not known.

    Raises:
        ValueError: it gave something else than a number for each response token.
    """
    losses = token_loss(tokens)
    if not isinstance(losses, Tensor) or losses.shape != tokens.logprobs.shape:
        is_tensor = isinstance(losses, Tensor)
        got = tuple(losses.shape) if is_tensor else type(losses).__name__
        number = len(tokens.logprobs)
        raise ValueError(
            f"loss: expected a tensor with one loss for each of {number} response tokens, got {got}"
        )
    ratio = tokens.log_ratio.exp()
    clipped = torch.zeros_like(ratio, dtype=torch.bool)
    objective = -losses
    loss = -(objective * tokens.weights).sum()
    return PolicyLoss(loss, ratio.detach(), clipped, tokens.approx_kl)


def _clipped_objective(ratio: Tensor, bounded: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lesser objective of each token, and whether it is that of the bounded ratio."""
    objective = torch.minimum(ratio * advantages, bounded * advantages)
    clipped = bounded * advantages < ratio * advantages
    return objective, clipped


def sequence_means(x: Tensor, responses: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Return the mean over its sequence for each response token.

    Shapes: x and responses `[R]`; returns `[R]`.
    """
    total, count = by_sequence(x, responses, cu_seqlens)
    return total / count


def by_sequence(x: Tensor, responses: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Return each response token's sum over its sequence, and the number of response tokens in it."""
    on_host = cu_seqlens[1:].long()
    (ends,) = upload([on_host], x.device)
    sequence = torch.bucketize(responses, ends, right=True)
    values = torch.stack((x, torch.ones_like(x)), dim=1)
    nothing = values.new_zeros(len(ends), 2)
    sums = nothing.index_add(0, sequence, values)
    total, count = sums[sequence].unbind(1)
    return total, count
