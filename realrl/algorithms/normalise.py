"""Baselines and normalisation over the whole global batch, of which each dp rank holds a part.

`reduce` sums a tensor over the dp ranks. Every rank calls it the same number of times, even one without
samples. Sums are float64 and deviations are taken from the mean, so that the result does not depend on how
the batch is split.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""A sum of a tensor over the dp ranks."""
Baseline = Literal["group_mean", "leave_one_out"]
Scale = Literal["none", "group_std", "batch_std"]
"""What differences from a baseline are divided by: nothing, the standard deviation of the group's rewards, or
that of the whole batch's differences."""

NEGLIGIBLE_STD = 1e-6
"""The standard deviation up to which rewards count as equal: it comes from rounding."""


def masked_normalise(x: Tensor, mask: Tensor, reduce: Reduce, *, eps: float = 1e-5) -> Tensor:
    """Return `(x - mean) / (std + eps)` for the masked elements of the global batch, and 0 elsewhere.

    Shapes: x floating `[T]`, mask bool `[T]`; returns `[T]` of x's type.
    Collective: over the ranks of `reduce`.
    """
    exact = x.double()
    own_count = mask.double().sum()
    own_sum = torch.where(mask, exact, 0.0).sum()
    total = reduce(torch.stack((own_count, own_sum)))
    # Where no element is masked, all are 0: only the division must not fail.
    count = total[0].clamp(min=1)
    mean = total[1] / count
    deviation = torch.where(mask, exact - mean, 0.0)
    squares = reduce(deviation.square().sum())
    variance = squares / count
    std = variance.sqrt()
    normalised = deviation / (std + eps)
    return normalised.to(x.dtype)


def group_relative(
    rewards: Tensor,
    groups: Tensor,
    num_groups: int,
    reduce: Reduce,
    *,
    counts: Tensor | None = None,
    baseline: Baseline = "group_mean",
    scale: Scale = "none",
    sample_std: bool = False,
) -> Tensor:
    """Return each sample's reward minus its group's average, divided as `scale` says.

    The average is over the group, or over the group's other samples. A group of one sample or of equal
    rewards gets 0. A sample that does not count gets 0 and is in no average. The samples of a group may be on
    several ranks. Standard deviations are those of a population: sums of squares are divided by the number
    n of samples; with `sample_std`, by n - 1.

    Shapes: rewards `[B]`; groups int64 `[B]` from 0 to `num_groups - 1`, numbered over the global batch;
        counts bool `[B]`, or None if all samples count; returns float32 `[B]`.
    Collective: over the ranks of `reduce`.
    Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.2 (GRPO); without the std, Liu et al. 2025,
        arXiv:2503.20783, sec. 3.2 (Dr.GRPO); by the batch's, Khatri et al. 2025, arXiv:2510.13786, sec. 3.2
        (ScaleRL); leave one out, Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    """
    if counts is None:
        counts = torch.ones_like(groups, dtype=torch.bool)
    one = counts.double()
    exact = rewards.double().where(counts, 0.0)
    number, mean = _numbers_and_means(exact, one, groups, num_groups, reduce)
    deviation = (exact - mean[groups]) * one
    own_squares = _sum_by_group(deviation.square(), groups, num_groups)
    squares = reduce(own_squares)
    variance = squares / number
    std = variance.sqrt()[groups]
    if baseline == "leave_one_out":
        # The mean of the others differs from the reward by this factor more.
        others = number - 1
        factor = number / others.clamp(min=1)
        deviation = deviation * factor[groups]
    advantages = deviation
    teaches = std > NEGLIGIBLE_STD
    if scale == "group_std":
        degrees = (number - int(sample_std)).clamp(min=1)
        group_std = (squares / degrees).sqrt()
        advantages = deviation / group_std[groups]
    elif scale == "batch_std":
        degrees = (reduce(one.sum()) - int(sample_std)).clamp(min=1)
        batch_std = (squares.sum() / degrees).sqrt()
        advantages = deviation / batch_std
    return torch.where(teaches, advantages, 0.0).float()


def group_means(x: Tensor, groups: Tensor, num_groups: int, reduce: Reduce, *, counts: Tensor) -> Tensor:
    """Return the mean of each group's elements that count, 0 for a group without any.

    Shapes: x `[B]`, groups int64 `[B]`, counts bool `[B]`, as `group_relative`; returns float64 `[G]`.
    Collective: over the ranks of `reduce`.
    """
    exact = x.double().where(counts, 0.0)
    _, means = _numbers_and_means(
        exact,
        counts.double(),
        groups,
        num_groups,
        reduce,
    )
    return means


def differs_in_group(
    rewards: Tensor, groups: Tensor, num_groups: int, reduce: Reduce, *, counts: Tensor | None = None
) -> Tensor:
    """Return whether the rewards of each sample's group differ, so that the group has a learning signal.

    Shapes: as `group_relative`; returns bool `[B]`.
    Collective: over the ranks of `reduce`.
    Source: Yu et al. 2025, arXiv:2503.14476, eq. 11 (DAPO's dynamic sampling).
    """
    relative = group_relative(rewards, groups, num_groups, reduce, counts=counts)
    spread = reduce(_sum_by_group(relative.abs(), groups, num_groups))
    return spread[groups] > 0


def _numbers_and_means(
    exact: Tensor, one: Tensor, groups: Tensor, num_groups: int, reduce: Reduce
) -> tuple[Tensor, Tensor]:
    """Return how many elements of each group count, at least 1, and their mean: float64 `[G]` each."""
    columns = torch.stack((one, exact), dim=1)
    own = _sum_by_group(columns, groups, num_groups)
    total = reduce(own)
    number = total[:, 0].clamp(min=1)
    mean = total[:, 1] / number
    return number, mean


def _sum_by_group(x: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    zeros = x.new_zeros(num_groups, *x.shape[1:])
    return zeros.index_add(0, groups, x)
