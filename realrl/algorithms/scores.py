"""From a check's result, or a model's score, to a reward."""

from __future__ import annotations

from torch import Tensor


def shaped(rewards: Tensor, *, bias: float, scale: float, clip: float) -> Tensor:
    """`(rewards + bias) * scale`, then kept within `+-clip` unless that is 0."""
    rewards = (rewards + bias) * scale
    return rewards.clamp(-clip, clip) if clip else rewards


def overlong_penalty(lengths: Tensor, *, max_tokens: int, buffer_tokens: int, penalty: float) -> Tensor:
    """What responses lose for coming near the limit: nothing, until they are in the buffer before it, and
    then more with each token, up to `penalty` at the limit.

    Shapes: lengths `[B]`, response tokens; returns float `[B]`, from `-penalty` to 0.
    Source: Yu et al. 2025, arXiv:2503.14476, eq. 13 (DAPO's soft overlong punishment).
    """
    over = lengths.float() - (max_tokens - buffer_tokens)
    return -penalty * (over / buffer_tokens).clamp(0, 1)
