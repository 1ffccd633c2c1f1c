"""Mean and standard deviation of what is seen step after step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from realrl.algorithms.normalise import Reduce

Kind = Literal["exponential", "moving"]

_EPS = 1e-5


@dataclass(frozen=True)
class RunningMoments:
    """Of the elements seen so far, each step's weighing `beta` times as much as the next one's, or all alike.

    Shapes: `sums` float64 `[3]`: the weighted sum of elements, of their squares, and of weights. With none
    seen,
        the mean is 0 and the standard deviation 1.
    Source: van Hasselt et al. 2016, arXiv:1602.07714, eq. 5 to 7, without the correction of the weights.
    """

    sums: Tensor

    @staticmethod
    def fresh() -> RunningMoments:
        return RunningMoments(torch.zeros(3, dtype=torch.double))

    def seen(self, x: Tensor, mask: Tensor, reduce: Reduce, *, kind: Kind, beta: float) -> RunningMoments:
        """With the masked elements of one more batch, of which each rank has a part.

        Collective: over the ranks of `reduce`.
        """
        chosen = x[mask].double()
        new = reduce(torch.stack((chosen.sum(), chosen.square().sum(), mask.sum().double())))
        if kind == "moving":
            return RunningMoments(self.sums + new)
        return RunningMoments(beta * self.sums + (1 - beta) * new / new[2].clamp(min=1))

    @property
    def mean(self) -> float:
        return float(self.sums[0] / self.sums[2]) if self.sums[2] else 0.0

    @property
    def std(self) -> float:
        if not self.sums[2]:
            return 1.0
        variance = float(self.sums[1] / self.sums[2]) - self.mean**2
        return max(variance, _EPS) ** 0.5

    def normalised(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def restored(self, x: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        return x * self.std + self.mean
