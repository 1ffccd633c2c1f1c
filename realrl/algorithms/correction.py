"""Correction of a loss for tokens that another policy drew: importance weights, and masks.

    log-probabilities before the update, of the trainer and of the rollout
        ── weight: token | sequence | geometric, up to a cap ──┐
        ── mask: tokens or sequences that moved too far        ├─▶ correction of each token, [T]

The rollout's log-probabilities differ from the trainer's because its engine computes them in another way, or
because its weights are older. `d` is the difference of a token: trainer's minus rollout's. `exp(d)` is its
importance weight.

Shapes: B sequences, T packed tokens, R of which are response tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from realrl.algorithms.choices import WeightBy
from realrl.algorithms.policy import ResponseTokens, by_sequence
from realrl.algorithms.presets import Correction

_LEAST_COMPLEMENT = 1e-6
"""Probabilities are at least so far from 0 and from 1 before logarithms are taken, as in AReaL."""


class Corrected(NamedTuple):
    """The corrections of the tokens of a micro-batch or a batch: `[T]` each."""

    factors: Tensor
    """What each token's loss is multiplied with: 0 where it is left out, and outside the responses."""
    weights: Tensor
    """The weight before the mask, 0 outside the responses."""
    is_kept: Tensor
    """Bool: a response token that the mask leaves in."""
    is_capped: Tensor
    """Bool: a response token whose weight was truncated."""


def corrected(
    prox_logprobs: Tensor,
    logprobs: Tensor,
    loss_mask: Tensor,
    cu_seqlens: Tensor,
    correction: Correction,
) -> Corrected:
    """Return the correction of each token, by the trainer's log-probabilities before the update, `prox`.

    Shapes: log-probabilities and loss_mask `[T]`; cu_seqlens int32 `[B+1]`.
    Source: decoupled PPO, Hilton et al. 2021, arXiv:2110.00641, eq. 4; truncated, Espeholt et al. 2018,
        arXiv:1802.01561, sec. 4.1 (V-trace).
    """
    responses = loss_mask.nonzero()[:, 0]
    own = logprobs[responses].double()
    prox = prox_logprobs[responses].double()
    difference = prox - own
    weight = _weight(difference, correction.weight, responses, cu_seqlens)
    is_capped = weight > correction.cap
    weight = weight.clamp(max=correction.cap)
    is_kept = _is_kept(prox, own, correction, responses, cu_seqlens)
    # A weight that is infinite and left out must not become infinite times 0.
    factors = weight.where(is_kept, 0.0)

    def at_places(values: Tensor) -> Tensor:
        outside = torch.zeros(len(loss_mask), dtype=values.dtype, device=values.device)
        return outside.masked_scatter(loss_mask, values)

    return Corrected(
        at_places(factors.to(logprobs.dtype)),
        at_places(weight.to(logprobs.dtype)),
        at_places(is_kept),
        at_places(is_capped),
    )


def stale_and_bad(tokens: ResponseTokens, rollout_logprobs: Tensor, *, limit: float) -> Tensor:
    """Return the tokens of responses with a negative advantage that the policy has moved away from.

    These are responses whose mean over tokens of rollout's minus policy's log-probability is above `limit`:
    off-policy sequence masking leaves them out. A response counts as bad by the sum of its advantages.

    Shapes: rollout_logprobs `[R]`; returns bool `[R]`.
    Source: DeepSeek-AI 2025, arXiv:2512.02556, sec. 3.1, "Off-Policy Sequence Masking" (DeepSeek-V3.2).
    """
    distance = rollout_logprobs - tokens.logprobs.detach()
    moved, number = by_sequence(distance, tokens.responses, tokens.cu_seqlens)
    earned, _ = by_sequence(tokens.advantages, tokens.responses, tokens.cu_seqlens)
    return (earned < 0) & (moved > limit * number)


def binary_kl(p_logprobs: Tensor, q_logprobs: Tensor) -> Tensor:
    """Return the KL divergence of two events, the drawn token and any other, from p to q.

    Shapes: any, alike; returns the same shape.
    Source: Guo et al. 2026, "Taming training-inference mismatch with adaptive masking regions" (KPop).
    """
    p = p_logprobs.exp().clamp(_LEAST_COMPLEMENT, 1 - _LEAST_COMPLEMENT)
    q = q_logprobs.exp().clamp(_LEAST_COMPLEMENT, 1 - _LEAST_COMPLEMENT)
    of_token = p * (p / q).log()
    of_others = (1 - p) * ((1 - p) / (1 - q)).log()
    return of_token + of_others


def _weight(difference: Tensor, by: WeightBy, responses: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Return each response token's importance weight, from the differences of all: `[R]`."""
    if by == "none":
        return torch.ones_like(difference)
    if by == "token":
        return difference.exp()
    total, number = by_sequence(difference, responses, cu_seqlens)
    if by == "sequence":
        return total.exp()
    return (total / number).exp()


def _is_kept(
    prox: Tensor, own: Tensor, correction: Correction, responses: Tensor, cu_seqlens: Tensor
) -> Tensor:
    """Return whether each response token stays in the loss: bool `[R]`."""
    if correction.mask == "none":
        return torch.ones_like(prox, dtype=torch.bool)
    if correction.mask == "binary_kl":
        forward = binary_kl(prox, own)
        backward = binary_kl(own, prox)
        return torch.maximum(forward, backward) <= correction.high
    looked_at = _weight(prox - own, correction.mask, responses, cu_seqlens)
    return (looked_at >= correction.low) & (looked_at <= correction.high)
