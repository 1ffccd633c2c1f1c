"""Rewards from the scores of graders and reward models."""

from __future__ import annotations

from torch import Tensor


def shaped(rewards: Tensor, *, bias: float, scale: float, clip: float) -> Tensor:
    """Return `(rewards + bias) * scale`, clamped to `+-clip` (0: no clamp)."""
    shifted = (rewards + bias) * scale
    if not clip:
        return shifted
    return shifted.clamp(-clip, clip)


def overlong_penalty(lengths: Tensor, *, max_tokens: int, buffer_tokens: int, penalty: float) -> Tensor:
    """Return the penalty of responses that come near the length limit.

    The penalty is 0 up to the buffer before the limit. Within the buffer it grows linearly, to `penalty`
    at the limit.

    Shapes: lengths `[B]`, response tokens; returns float `[B]`, from `-penalty` to 0.
    Source: Yu et al. 2025, arXiv:2503.14476, eq. 13 (DAPO's soft overlong punishment).
    """
    over = lengths.float() - (max_tokens - buffer_tokens)
    return -penalty * (over / buffer_tokens).clamp(0, 1)
