"""Normalisation over the whole global batch, of which each dp rank holds a part.

`reduce` sums a tensor over the dp ranks; every rank calls it equally often, also one that holds nothing.
Sums are float64 and deviations are taken from the mean, so that no split of the batch shows in the result.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]

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
    rewards: Tensor, groups: Tensor, num_groups: int, reduce: Reduce, *, normalise_std: bool
) -> Tensor:
    """Each sample's reward relative to its group's mean, in units of the group's std if asked.

    A group of one sample, or of equal rewards, gets 0. Samples of a group may be on several ranks.

    Shapes: rewards `[B]`, groups int64 `[B]` from 0 to `num_groups - 1`, numbered over the global batch;
        returns float32 `[B]`.
    Collective: over the ranks of `reduce`.
    Source: Shao et al. 2024, arXiv:2402.03300, sec. 4.1.2.
    """
    exact = rewards.double()
    pairs = torch.stack((torch.ones_like(exact), exact), dim=1)
    total = reduce(_sum_by_group(pairs, groups, num_groups))
    count = total[:, 0].clamp(min=1)
    deviation = exact - (total[:, 1] / count)[groups]
    squares = reduce(_sum_by_group(deviation.square(), groups, num_groups))
    std = (squares / count).sqrt()[groups]
    advantages = deviation / std if normalise_std else deviation
    return torch.where(std > NEGLIGIBLE_STD, advantages, 0.0).float()


def _sum_by_group(x: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    return x.new_zeros(num_groups, *x.shape[1:]).index_add(0, groups, x)
