"""Metrics of a call, which add up over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # configs and the command line's help load this module, and have no need of torch
    from torch import Tensor


class Mean(NamedTuple):
    """A metric that adds up over ranks: `total / weight` is its mean."""

    total: float | Tensor
    """A scalar tensor may stay on its device until the call has ended."""
    weight: float

    def joined(self, other: Mean) -> Mean:
        """Return the metric of both parts."""
        return Mean(self.total + other.total, self.weight + other.weight)


class Peak(NamedTuple):
    """A metric of which the largest over ranks counts."""

    largest: float

    def joined(self, other: Peak) -> Peak:
        """Return the metric of both parts."""
        return max(self, other)


Metric = Mean | Peak
Metrics = Mapping[str, Metric]


def joined(*parts: Metrics) -> dict[str, Metric]:
    """Return all metrics of several parts of a whole."""
    whole: dict[str, Metric] = {}
    for part in parts:
        for name, metric in part.items():
            whole[name] = _both(name, whole[name], metric) if name in whole else metric
    return whole


def _both(name: str, one: Metric, other: Metric) -> Metric:
    """Return one metric of two parts."""
    if isinstance(one, Mean) and isinstance(other, Mean):
        return one.joined(other)
    assert isinstance(one, Peak) and isinstance(other, Peak), (
        f"{name} is a mean in one part, a peak in another"
    )
    return one.joined(other)
