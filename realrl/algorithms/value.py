"""The critic's loss over packed tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ValueLoss:
    """One micro-batch's share of the loss, a scalar, and what it was at each response token, `[R]`."""

    loss: Tensor
    clipped: Tensor
    """Whether the clipped value gave the loss."""


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    responses: Tensor,
    weights: Tensor,
    *,
    clip_eps: float,
) -> ValueLoss:
    """Half the squared error, of the value or of the value clipped to its old one +- `clip_eps`: the worse.

    A `clip_eps` of 0 sets no bound.

    Shapes: all `[T]`, T = packed tokens of a micro-batch, as in `policy`.
    Source: the PPO authors' code (github openai/baselines, ppo2/model.py).
    """
    values, old_values, returns, weights = (x[responses] for x in (values, old_values, returns, weights))
    unclipped = (values - returns).square()
    if not clip_eps:
        loss = 0.5 * (unclipped * weights).sum()
        return ValueLoss(loss, torch.zeros_like(unclipped, dtype=torch.bool))
    moved = values - old_values
    near_old = old_values + moved.clamp(-clip_eps, clip_eps)
    clipped = (near_old - returns).square()
    loss = 0.5 * (torch.maximum(unclipped, clipped) * weights).sum()
    return ValueLoss(loss, (moved.abs() > clip_eps) & (clipped > unclipped))
