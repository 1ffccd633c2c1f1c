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
    error = values - returns
    unclipped = error.square()
    if not clip_eps:
        weighted = unclipped * weights
        none = torch.zeros_like(unclipped, dtype=torch.bool)
        return ValueLoss(0.5 * weighted.sum(), none)
    moved = values - old_values
    near_old = old_values + moved.clamp(-clip_eps, clip_eps)
    clipped_error = near_old - returns
    clipped = clipped_error.square()
    larger = torch.maximum(unclipped, clipped)
    weighted = larger * weights
    has_moved_far = moved.abs() > clip_eps
    is_larger = clipped > unclipped
    return ValueLoss(0.5 * weighted.sum(), has_moved_far & is_larger)
