"""The critic's loss over packed tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ValueLoss:
    """The loss of one micro-batch, a scalar, and a statistic of its response tokens, `[R]`."""

    loss: Tensor
    clipped: Tensor
    """Whether the clipped value determined the loss."""


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    responses: Tensor,
    weights: Tensor,
    *,
    clip_eps: float,
) -> ValueLoss:
    """Return half the squared error: the larger error of the value and of the clipped value.

    The clipped value is within `clip_eps` of the old value (0: no clipping).

    Shapes: as in `policy`: all `[T]`, T = packed tokens of a micro-batch, and responses int64 `[R]`.
    Source: the PPO authors' code (github openai/baselines, ppo2/model.py).
    """
    values = values[responses]
    old_values = old_values[responses]
    returns = returns[responses]
    weights = weights[responses]
    unclipped = (values - returns).square()
    if not clip_eps:
        loss = 0.5 * (unclipped * weights).sum()
        return ValueLoss(loss, torch.zeros_like(unclipped, dtype=torch.bool))
    moved = values - old_values
    near_old = old_values + moved.clamp(-clip_eps, clip_eps)
    clipped = (near_old - returns).square()
    larger = torch.maximum(unclipped, clipped)
    loss = 0.5 * (larger * weights).sum()
    clip_determined = (moved.abs() > clip_eps) & (clipped > unclipped)
    return ValueLoss(loss, clip_determined)
