"""The learning rate over a run."""

from __future__ import annotations

import math

from realrl.api.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """The rate of optimizer step `step`, counted from 0, of `total_steps`.

    The warm-up's first step already has a rate above 0, its last the peak; the fall then reaches
    `min_lr_ratio` when the last step is over.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    height = _height(config.schedule, min(1.0, progress))
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * height)


def _height(schedule: str, progress: float) -> float:
    """How much of the way from the floor to the peak is left."""
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - progress
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    raise ValueError(f"schedule must be constant, linear or cosine, got {schedule!r}")
