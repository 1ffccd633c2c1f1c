"""AdamW whose states are spread over the data-parallel ranks.

Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 5.1 (optimizer-state partitioning).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.api.config import OptimizerConfig
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups, all_reduce

_NORM_WIDTH = 256
"""Elements whose squares are summed in float32, to within 1e-6."""

Span = tuple[int, int, float]
"""Elements [start, stop) of the flat buffer, and how many ranks of one data-parallel slice hold them."""


class ShardedAdamW:
    """Keeps float32 masters and moments for this rank's share of the flat weights."""

    def __init__(
        self, weights: FlatTensors, copies: Sequence[Span], groups: Groups, config: OptimizerConfig
    ) -> None:
        self._weights, self._groups, self._config = weights, groups, config
        size = len(weights.buffer) // groups.placement.layout.dp
        self._start = groups.place.dp_rank * size
        self._share = weights.buffer[self._start : self._start + size]
        self.master = self._share.float()
        self.gradients = torch.zeros_like(weights.buffer, dtype=torch.float32)
        self._copies = [(max(a - self._start, 0), min(b - self._start, size), n) for a, b, n in copies]
        self._adamw = self._make_adamw(min(max(weights.num_matrix_elements - self._start, 0), size))

    def _make_adamw(self, num_decayed: int) -> torch.optim.AdamW:
        decayed, plain = self.master[:num_decayed], self.master[num_decayed:]
        return torch.optim.AdamW(
            [
                {"params": [decayed], "weight_decay": self._config.weight_decay},
                {"params": [plain], "weight_decay": 0.0},
            ],
            lr=self._config.lr,
            betas=(self._config.beta1, self._config.beta2),
            eps=self._config.eps,
            fused=True,
        )

    def reload(self) -> None:
        """Take the masters from the weights, as after a checkpoint was read into them."""
        self.master.copy_(self._share)

    @torch.no_grad()
    def step(self, lr: float) -> float:
        """Sum the gradients over dp, clip, update, and give every rank the new weights.

        Returns the norm of the whole gradient before clipping. Collective over the mesh.

        Raises:
            FloatingPointError: the norm is infinite or no number; the weights are as before.
        """
        share = self._summed_share()
        norm = self._norm(share)
        if not math.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm}: no update was made; lower the lr")
        limit = self._config.clip_grad_norm
        if limit and norm > limit:
            share.mul_(limit / (norm + 1e-6))
        for group in self._adamw.param_groups:
            group["lr"] = lr
            (parameter,) = group["params"]
            parameter.grad, share = share[: len(parameter)], share[len(parameter) :]
        self._adamw.step()
        self._adamw.zero_grad()
        self._publish()
        self.gradients.zero_()
        return norm

    def _summed_share(self) -> Tensor:
        if self._groups.dp is None:
            return self.gradients
        share = torch.empty_like(self.master)
        dist.reduce_scatter_tensor(share, self.gradients, group=self._groups.dp)
        return share

    def _norm(self, share: Tensor) -> float:
        """Each element counts once, however many ranks hold a copy."""
        squares = [_sum_of_squares(share[a:b]) / copies for a, b, copies in self._copies if b > a]
        total = sum(squares, torch.zeros((), dtype=torch.float64, device=share.device))
        return float(all_reduce(total, self._groups.mesh).sqrt())

    def _publish(self) -> None:
        self._share.copy_(self.master)
        if self._groups.dp is not None:
            dist.all_gather_into_tensor(self._weights.buffer, self._share.clone(), group=self._groups.dp)


def _sum_of_squares(x: Tensor) -> Tensor:
    """A float64 scalar of a float32 `[N]`, without a copy of x in either type."""
    whole = len(x) // _NORM_WIDTH * _NORM_WIDTH
    norms = torch.linalg.vector_norm(x[:whole].view(-1, _NORM_WIDTH), dim=1)
    return norms.double().square().sum() + x[whole:].double().square().sum()
