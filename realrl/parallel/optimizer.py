"""AdamW whose states are spread over the data-parallel ranks.

Source: Rajbhandari et al. 2020, arXiv:1910.02054, section 5.1 (optimizer-state partitioning); states in host
    memory, Ren et al. 2021, arXiv:2101.06840 (ZeRO-Offload).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.adamw import adamw

from realrl.api.config import OptimizerConfig
from realrl.parallel.early_sums import EarlySums
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups, all_reduce
from realrl.parallel.zero_shards import gather, share_of

logger = logging.getLogger(__name__)

MAX_SKIPPED = 3
"""Updates in a row whose gradient may be no number: a rare overflow passes, weights that are lost do not."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_NUM_UPDATES = "num_updates"
_NORM_WIDTH = 256
"""Elements whose squares are summed in float32, to within 1e-6."""

Span = tuple[int, int, float]
"""Elements [start, stop) of the flat buffer, and how many ranks of one data-parallel slice hold them."""


class ShardedAdamW:
    """Keeps float32 masters and moments for this rank's share of the flat weights.

    `states_device`: where these are and the update runs, if not beside the weights; the share of the
    gradients goes there, and the new weights come back.
    `summed_early`: matrices whose gradients are summed over dp once `finished` tells of them; None: all
    gradients are summed together in `step`.
    """

    def __init__(
        self,
        weights: FlatTensors,
        copies: Sequence[Span],
        groups: Groups,
        config: OptimizerConfig,
        *,
        states_device: torch.device | str | None = None,
        summed_early: Collection[str] | None = None,
    ) -> None:
        self._groups, self._config, self._states_device = groups, config, states_device
        self._early: EarlySums | None = None
        if summed_early is not None and groups.dp is not None:
            self._early = EarlySums(weights.spans, summed_early, len(weights.buffer), groups)
        self._hold(weights)
        start, size = self._start, len(self._share)
        self.master = (
            self._share.float() if states_device is None else self._hosted(self._share, torch.float32)
        )
        self._copies = [(max(a - start, 0), min(b - start, size), n) for a, b, n in copies]
        self._num_decayed = min(max(weights.num_matrix_elements - start, 0), size)
        self.states = {name: torch.zeros_like(self.master) for name in _MOMENTS}
        """Beside the masters: the moments, and how many updates matrices and other weights have had."""
        self.states[_NUM_UPDATES] = torch.zeros(2, device=self.master.device)
        self._num_skipped = 0

    def _hold(self, weights: FlatTensors) -> None:
        self._dtype = weights.buffer.dtype
        self._weights = weights
        self._start, stop = share_of(len(weights.buffer), self._groups)
        self._share = weights.buffer[self._start : stop]
        self.gradients = torch.zeros_like(weights.buffer, dtype=torch.float32)

    def sum_of(self, weight: Tensor) -> Tensor:
        """The sum of the gradients of a weight, which may be transposed."""
        return self.gradients.as_strided(weight.shape, weight.stride(), self._offset(weight))

    def finished(self, weight: Tensor) -> None:
        """Begin to sum over dp what is complete now; `weight` gets no more gradients before the next step.

        Collective over dp, in any order of weights.
        """
        if self._early is not None:
            self._early.finished(self._offset(weight), self.gradients)

    def _offset(self, weight: Tensor) -> int:
        """Where a weight begins in the flat buffer."""
        return weight.storage_offset() - self._weights.buffer.storage_offset()

    def put_away(self) -> dict[str, Tensor]:
        """Let go of the weights, of the gradients, which are zero between steps, and of states beside them.

        Returns the latter, for `bring_back`.
        """
        self._weights = self._share = self.gradients = None
        if self._states_device is not None:
            return {}
        states, self.states = self.states, {}
        if not self._is_own_master:
            states["master"] = self.master
        self.master = None
        return states

    def bring_back(self, weights: FlatTensors, states: Mapping[str, Tensor]) -> None:
        """Go on with weights, and states, that have the values of those that were put away."""
        self._hold(weights)
        if self._states_device is not None:
            return
        self.states = dict(states)
        self.master = self.states.pop("master", self._share)

    @property
    def sharded(self) -> dict[str, Tensor]:
        """What training on depends on, as this rank has its share of it; weights follow from the masters."""
        return {"master": self.master, **{name: self.states[name] for name in _MOMENTS}}

    @property
    def common(self) -> dict[str, Tensor]:
        """The same, as every rank has all of it."""
        return {_NUM_UPDATES: self.states[_NUM_UPDATES]}

    @property
    def _is_own_master(self) -> bool:
        """Whether the weights are their own masters."""
        return self._states_device is None and self._dtype == torch.float32

    @torch.no_grad()
    def reload(self, values: Tensor) -> None:
        """Take the weights, and the masters of this rank's share, from float32 values of all of them."""
        self._weights.buffer.copy_(values)
        self.master.copy_(values[self._start : self._start + len(self._share)])

    @torch.no_grad()
    def step(self, lr: float) -> float:
        """Sum the gradients over dp, clip, update, and give every rank the new weights.

        Returns the norm of the whole gradient before clipping. If that is infinite or no number, the update
        is skipped: weights and moments are as before. Collective over the mesh.

        Raises:
            FloatingPointError: `MAX_SKIPPED` updates in a row were skipped.
        """
        share = self._summed_share()
        norm = self._norm(share)
        if not math.isfinite(norm):
            self._skip(norm)
            return norm
        self._num_skipped = 0
        limit = self._config.clip_grad_norm
        if limit and norm > limit:
            share.mul_(limit / (norm + 1e-6))
        self._update(share, lr)
        del share  # Giving every rank the weights takes copies of its own.
        self.publish()
        self.gradients.zero_()
        return norm

    def discard(self) -> None:
        """Drop the gradients without an update. Collective over dp, whose other ranks may wait for a sum."""
        if self._early is not None:
            self._early.finish(self.gradients)
        self.gradients.zero_()

    def _skip(self, norm: float) -> None:
        self._num_skipped += 1
        self.gradients.zero_()
        if self._num_skipped == MAX_SKIPPED:
            raise FloatingPointError(
                f"the gradient's norm was no finite number {MAX_SKIPPED} times in a row, at last {norm}: no"
                " update was made; lower the lr, or look at the rewards and at the loss"
            )
        logger.warning("the gradient's norm is %s: this update is skipped", norm)

    def _update(self, share: Tensor, lr: float) -> None:
        if self._states_device is not None:
            share = self._hosted(share, torch.float32)
        config, decayed, plain = self._config, slice(self._num_decayed), slice(self._num_decayed, None)
        for i, (part, weight_decay) in enumerate(((decayed, config.weight_decay), (plain, 0.0))):
            adamw(
                [self.master[part]],
                [share[part]],
                *([self.states[name][part]] for name in _MOMENTS),
                [],
                [self.states[_NUM_UPDATES][i]],
                fused=True,
                amsgrad=False,
                beta1=config.beta1,
                beta2=config.beta2,
                lr=lr,
                weight_decay=weight_decay,
                eps=config.eps,
                maximize=False,
            )

    def _summed_share(self) -> Tensor:
        if self._groups.dp is None:
            return self.gradients
        if self._early is not None:
            self._early.finish(self.gradients)
            return self.gradients[self._start : self._start + len(self._share)]
        share = torch.empty_like(self._share, dtype=torch.float32)
        dist.reduce_scatter_tensor(share, self.gradients, group=self._groups.dp)
        return share

    def _norm(self, share: Tensor) -> float:
        """Each element counts once, however many ranks hold a copy."""
        squares = [_sum_of_squares(share[a:b]) / copies for a, b, copies in self._copies if b > a]
        total = sum(squares, torch.zeros((), dtype=torch.float64, device=share.device))
        return float(all_reduce(total, self._groups.mesh).sqrt())

    def _hosted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy where the states are; pinned where CUDA copies it, which is then several times as fast."""
        is_pinned = self._share.is_cuda
        made = torch.empty(tensor.shape, dtype=dtype, device=self._states_device, pin_memory=is_pinned)
        return made.copy_(tensor)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters to the weights, and give every rank those of all. Collective over dp."""
        # States elsewhere are rounded there, so that no more bytes travel than the weights have.
        is_here = self._states_device is None
        self._share.copy_(self.master if is_here else self._hosted(self.master, self._dtype))
        gather(self._weights.buffer, self._groups)


def _sum_of_squares(x: Tensor) -> Tensor:
    """A float64 scalar of a float32 `[N]`, without a copy of x in either type."""
    whole = len(x) // _NORM_WIDTH * _NORM_WIDTH
    norms = torch.linalg.vector_norm(x[:whole].view(-1, _NORM_WIDTH), dim=1)
    return norms.double().square().sum() + x[whole:].double().square().sum()
