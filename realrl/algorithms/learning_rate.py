"""The learning-rate schedule of a run."""

from __future__ import annotations

import math

from realrl.api.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, total_steps: int) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0, of `total_steps`.

    The first warm-up step has a rate above 0, and the last one has the peak. The rate then falls, and would
    reach `min_lr_ratio` of the peak in the step after the last.

    Raises:
        ValueError: an unknown schedule.
    """
    warmup_steps = config.warmup_steps
    if step < warmup_steps:
        return config.lr * (step + 1) / warmup_steps
    decay_steps = max(1, total_steps - warmup_steps)
    progress = (step - warmup_steps) / decay_steps
    height = _height(config.schedule, min(1.0, progress))
    floor = config.min_lr_ratio
    ratio = floor + (1 - floor) * height
    return config.lr * ratio


def _height(schedule: str, progress: float) -> float:
    """Return the height between the floor, 0, and the peak, 1."""
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - progress
    if schedule == "cosine":
        return (1 + math.cos(math.pi * progress)) / 2
    raise ValueError(f"schedule must be constant, linear or cosine, got {schedule!r}")
