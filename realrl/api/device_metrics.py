"""Reads metrics whose numbers are still on a device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from realrl.api.metrics import Mean, Metric, Metrics, Peak
from realrl.base.waiting import wait_for_device


def read(metrics: Metrics) -> Metrics:
    """Return the same metrics as Python numbers; the host waits for a device once for all of them."""
    scalars: list[Tensor] = []
    for metric in metrics.values():
        scalars += [number for number in metric if isinstance(number, Tensor)]
    if not scalars:
        return metrics
    in_double = [scalar.detach().double() for scalar in scalars]
    numbers = iter(wait_for_device(torch.stack(in_double).tolist))
    return {name: _read(metric, numbers) for name, metric in metrics.items()}


def _read(metric: Metric, numbers: Iterator[float]) -> Metric:
    """Return a metric whose tensors are replaced by the next `numbers`."""
    if isinstance(metric, Peak):
        return Peak(_number(metric.largest, numbers))
    total = _number(metric.total, numbers)
    weight = _number(metric.weight, numbers)
    return Mean(total, weight)


def _number(value: float | Tensor, numbers: Iterator[float]) -> float:
    return next(numbers) if isinstance(value, Tensor) else value
