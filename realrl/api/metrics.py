"""Reading metrics whose numbers are on a device still."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.api.recipe import Metrics


def read(metrics: Metrics) -> Metrics:
    """The same metrics as numbers of Python; the host waits for a device once for all of them."""
    scalars = [x for metric in metrics.values() for x in metric if isinstance(x, Tensor)]
    if not scalars:
        return metrics
    numbers = iter(torch.stack([x.detach().double() for x in scalars]).tolist())
    return {
        name: type(metric)(*(next(numbers) if isinstance(x, Tensor) else x for x in metric))
        for name, metric in metrics.items()
    }
