"""Baselines and normalisation over the whole global batch, of which each dp rank holds a part.

`reduce` sums a tensor over the dp ranks; every rank calls it equally often, also one that holds nothing.
Sums are float64 and deviations are taken from the mean, so that no split of the batch shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
Baseline = Literal["group_mean", "leave_one_out"]

NEGLIGIBLE_STD = 1e-6
"""Rewards that differ by less do not differ: it is rounding."""


def masked_normalise(x: Tensor, mask: Tensor, reduce: Reduce, *, eps: float = 1e-5) -> Tensor:
    """`(x - mean) / (std + eps)` over all masked elements of the global batch; 0 elsewhere.

    Shapes: x floating `[T]`, mask bool `[T]`; returns `[T]` of x's type.
    Collective: over the ranks of `reduce`.
    """
    weight = mask.double()
    total = reduce(torch.stack((weight.sum(), torch.where(mask, x.double(), 0.0).sum())))
    count, mean = total[0].clamp(min=1), total[1] / total[0].clamp(min=1)
    deviation = torch.where(mask, x.double() - mean, 0.0)
    variance = reduce(deviation.square().sum()) / count
    return (deviation / (variance.sqrt() + eps)).to(x.dtype)


def group_relative(
    rewards: Tensor,
    groups: Tensor,
    num_groups: int,
    reduce: Reduce,
    *,
    counts: Tensor | None = None,
    baseline: Baseline = "group_mean",
    normalise_std: bool = False,
) -> Tensor:
    """Each sample's reward less what its group gets on average, in units of the group's std if asked.

    The average is over the group, or over the group's other samples. A group of one sample, or of equal
    rewards, gets 0, and so does a sample that does not count, which is in no average either. Samples of a
    group may be on several ranks.

    Shapes: rewards `[B]`, groups int64 `[B]` from 0 to `num_groups - 1`, numbered over the global batch;
    counts
        bool `[B]`, left out: all do; returns float32 `[B]`.
    Collective: over the ranks of `reduce`.
    Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.2 (GRPO); without the std, Liu et al. 2025,
        arXiv:2503.20783, sec. 3.2 (Dr.GRPO); leave one out, Ahmadian et al. 2024, arXiv:2402.14740, eq. 8.
    """
    counts = torch.ones_like(groups, dtype=torch.bool) if counts is None else counts
    one, exact = counts.double(), rewards.double().where(counts, 0.0)
    total = reduce(_sum_by_group(torch.stack((one, exact), dim=1), groups, num_groups))
    number = total[:, 0].clamp(min=1)
    deviation = (exact - (total[:, 1] / number)[groups]) * one
    squares = reduce(_sum_by_group(deviation.square(), groups, num_groups))
    std = (squares / number).sqrt()[groups]
    if baseline == "leave_one_out":
        deviation = deviation * (number / (number - 1).clamp(min=1))[groups]
    advantages = deviation / std if normalise_std else deviation
    return torch.where(std > NEGLIGIBLE_STD, advantages, 0.0).float()


def differs_in_group(
    rewards: Tensor, groups: Tensor, num_groups: int, reduce: Reduce, *, counts: Tensor | None = None
) -> Tensor:
    """Whether the rewards of a sample's group are not all alike, so that there is something to learn from.

    Shapes: as `group_relative`; returns bool `[B]`.
    Collective: over the ranks of `reduce`.
    Source: Yu et al. 2025, arXiv:2503.14476, eq. 11 (DAPO's dynamic sampling).
    """
    relative = group_relative(rewards, groups, num_groups, reduce, counts=counts)
    return reduce(_sum_by_group(relative.abs(), groups, num_groups))[groups] > 0


def _sum_by_group(x: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    return x.new_zeros(num_groups, *x.shape[1:]).index_add(0, groups, x)
