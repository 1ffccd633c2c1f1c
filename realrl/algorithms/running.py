"""Running mean and standard deviation over the steps of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from realrl.algorithms.normalise import Reduce

Kind = Literal["exponential", "moving"]

_EPS = 1e-5
"""The smallest variance."""


@dataclass(frozen=True)
class RunningMoments:
    """Moments of the elements seen so far.

    With the kind `exponential`, a step has `beta` times the weight of the next one. With `moving`, all
    elements have the same weight. Before the first element, the mean is 0 and the standard deviation is 1.

    Shapes: `sums` float64 `[3]`: the weighted sums of elements, of their squares, and of 1.
    Source: van Hasselt et al. 2016, arXiv:1602.07714, eq. 5 to 7, without the correction of the weights.
    """

    sums: Tensor

    @staticmethod
    def fresh() -> RunningMoments:
        """Return the moments of no elements."""
        return RunningMoments(torch.zeros(3, dtype=torch.double))

    def seen(self, x: Tensor, mask: Tensor, reduce: Reduce, *, kind: Kind, beta: float) -> RunningMoments:
        """Return the moments after one more batch, of which each rank holds a part of the masked elements.

        Collective: over the ranks of `reduce`.
        """
        chosen = x[mask].double()
        own_sum = chosen.sum()
        own_squares = chosen.square().sum()
        own_number = mask.sum().double()
        new = reduce(torch.stack((own_sum, own_squares, own_number)))
        if kind == "moving":
            return RunningMoments(self.sums + new)
        # Each step counts once, whatever the number of its elements.
        number = new[2].clamp(min=1)
        step = (1 - beta) * new / number
        faded = beta * self.sums
        return RunningMoments(faded + step)

    @property
    def mean(self) -> float:
        """The weighted mean, 0 without elements."""
        if not self.sums[2]:
            return 0.0
        return float(self.sums[0] / self.sums[2])

    @property
    def std(self) -> float:
        """The weighted standard deviation, 1 without elements and never 0."""
        if not self.sums[2]:
            return 1.0
        mean_square = float(self.sums[1] / self.sums[2])
        variance = mean_square - self.mean**2
        return float(max(variance, _EPS) ** 0.5)

    def normalised(self, x: Tensor) -> Tensor:
        """Return `(x - mean) / std`, of the shape of x."""
        return (x - self.mean) / self.std

    def restored(self, x: Tensor) -> Tensor:
        """Return `x * std + mean`, the inverse of `normalised`."""
        return x * self.std + self.mean
