"""AdamW whose states are sharded over the data-parallel ranks.

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
from realrl.base.waiting import wait_for_device, wait_for_ranks
from realrl.parallel.early_sums import EarlySums
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups, all_reduce
from realrl.parallel.zero_shards import gather, share_of

logger = logging.getLogger(__name__)

MAX_SKIPPED = 3
"""Failed updates in a row that end the run: a rare overflow passes, weights that are lost do not."""
_MOMENTS = ("exp_avg", "exp_avg_sq")
_NUM_UPDATES = "num_updates"
_NORM_WIDTH = 256
"""Elements whose squares are summed in float32, to within 1e-6."""

Span = tuple[int, int, float]
"""Elements [start, stop) of the flat buffer, and how many ranks of one data-parallel slice hold them."""


class ShardedAdamW:
    """Keeps float32 masters and moments for this rank's share of the flat weights.

    Shapes: N elements of the flat buffer, N / dp of a rank's share.
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
        """Begin with masters equal to the weights.

        `states_device` is the device of the states and of the update; None is the weights' device. With
        another device, the share of the gradients is copied to it, and the new weights are copied back.

        `summed_early` names matrices whose gradients are summed over dp as soon as `finished` is called for
        them; None: `step` sums all gradients together.
        """
        self._groups = groups
        self._config = config
        self._states_device = states_device
        self._early = _early_sums(weights, summed_early, groups)
        self._hold(weights)
        if states_device is None:
            self.master = self._share.float()
        else:
            self.master = self._hosted(self._share, torch.float32)

        self._copies = self._within_share(copies)
        num_decayed = weights.num_matrix_elements - self._start
        self._num_decayed = min(max(num_decayed, 0), len(self._share))
        self.states = {name: torch.zeros_like(self.master) for name in _MOMENTS}
        """The moments, and how many updates matrices and other weights have had."""
        self.states[_NUM_UPDATES] = torch.zeros(2, device=self.master.device)
        self._num_skipped = 0

    def _hold(self, weights: FlatTensors) -> None:
        buffer = weights.buffer
        start, stop = share_of(len(buffer), self._groups)
        self._dtype = buffer.dtype
        self._weights = weights
        self._start = start
        self._share = buffer[start:stop]
        self.gradients = torch.zeros_like(buffer, dtype=torch.float32)

    def _within_share(self, copies: Sequence[Span]) -> list[Span]:
        """Return the spans as elements of this rank's share; some are empty."""
        size = len(self._share)
        shifted: list[Span] = []
        for start, stop, num_copies in copies:
            low = max(start - self._start, 0)
            high = min(stop - self._start, size)
            shifted.append((low, high, num_copies))
        return shifted

    def sum_of(self, weight: Tensor) -> Tensor:
        """Return the sum of the gradients of a weight, which may be transposed.

        Shapes: float32, shaped like the weight.
        """
        return self.gradients.as_strided(
            weight.shape,
            weight.stride(),
            self._offset(weight),
        )

    def finished(self, weight: Tensor) -> None:
        """Begin to sum over dp what is complete now; `weight` gets no more gradients before the next step.

        Collective: over dp, in any order of weights.
        """
        if self._early is not None:
            self._early.finished(self._offset(weight), self.gradients)

    def _offset(self, weight: Tensor) -> int:
        """Return the weight's first element in the flat buffer."""
        start = int(weight.storage_offset())
        start_of_buffer = int(self._weights.buffer.storage_offset())
        return start - start_of_buffer

    def put_away(self) -> dict[str, Tensor]:
        """Drop the weights, the gradients, which are zero between steps, and the states on their device.

        Until `bring_back`, nothing else may be called. Returns the states, for `bring_back`.
        """
        del self._weights, self._share, self.gradients
        if self._states_device is not None:
            return {}
        states = self.states
        self.states = {}
        if not self._is_own_master:
            states["master"] = self.master
        del self.master
        return states

    def bring_back(self, weights: FlatTensors, states: Mapping[str, Tensor]) -> None:
        """Resume with weights and states of the same values as those that were put away."""
        self._hold(weights)
        if self._states_device is not None:
            return
        self.states = dict(states)
        self.master = self.states.pop("master", self._share)

    @property
    def sharded(self) -> dict[str, Tensor]:
        """This rank's shard of the state that resuming needs; weights follow from the masters.

        Shapes: each float32 `[N / dp]`.
        """
        moments = {name: self.states[name] for name in _MOMENTS}
        return {"master": self.master, **moments}

    @property
    def common(self) -> dict[str, Tensor]:
        """The state that resuming needs and that every rank holds whole."""
        return {_NUM_UPDATES: self.states[_NUM_UPDATES]}

    @property
    def _is_own_master(self) -> bool:
        """Whether the weights are their own masters."""
        return self._states_device is None and self._dtype == torch.float32

    @torch.no_grad()
    def reload(self, values: Tensor) -> None:
        """Set the weights, and the masters of this rank's share, from the values of all weights.

        Shapes: values float32 `[N]`.
        """
        self._weights.buffer.copy_(values)
        start = self._start
        stop = start + len(self._share)
        self.master.copy_(values[start:stop])

    @torch.no_grad()
    def step(self, lr: float) -> float:
        """Sum the gradients over dp, clip, update, and give every rank the new weights.

        Returns the norm of the whole gradient before clipping. If the norm is infinite or NaN, the update is
        skipped: weights and moments are as before.

        Collective: over the mesh.
        Raises:
            FloatingPointError: `MAX_SKIPPED` updates in a row were skipped.
        """
        share = self.gradients
        if self._early is not None:
            self._early.finish(self.gradients)
            stop = self._start + len(self._share)
            share = self.gradients[self._start : stop]
        elif self._groups.dp is not None:
            share = torch.empty_like(self._share, dtype=torch.float32)
            wait_for_ranks(dist.reduce_scatter_tensor, share, self.gradients, group=self._groups.dp)

        norm = self._norm(share)
        if not math.isfinite(norm):
            self._skip(norm)
            return norm

        self._num_skipped = 0
        limit = self._config.clip_grad_norm
        if limit and norm > limit:
            share.mul_(limit / (norm + 1e-6))
        self._update(share, lr)
        # Publishing the weights needs room for copies of its own.
        del share
        self.publish()
        self.gradients.zero_()
        return norm

    def discard(self) -> None:
        """Drop the gradients without an update.

        Collective: over dp, whose other ranks may wait for a sum.
        """
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
        """Update the masters of this rank's share; weights decay in matrices alone."""
        if self._states_device is not None:
            share = self._hosted(share, torch.float32)

        config = self._config
        matrices = slice(self._num_decayed)
        others = slice(self._num_decayed, None)
        decayed = (matrices, config.weight_decay), (others, 0.0)
        for number, (part, weight_decay) in enumerate(decayed):
            adamw(
                params=[self.master[part]],
                grads=[share[part]],
                exp_avgs=[self.states["exp_avg"][part]],
                exp_avg_sqs=[self.states["exp_avg_sq"][part]],
                max_exp_avg_sqs=[],
                state_steps=[self.states[_NUM_UPDATES][number]],
                fused=True,
                amsgrad=False,
                beta1=config.beta1,
                beta2=config.beta2,
                lr=lr,
                weight_decay=weight_decay,
                eps=config.eps,
                maximize=False,
            )

    def _norm(self, share: Tensor) -> float:
        """Return the norm of the whole gradient: each element counts once, however many ranks hold a copy."""
        total = torch.zeros(
            (),
            dtype=torch.float64,
            device=share.device,
        )
        for start, stop, num_copies in self._copies:
            if start < stop:
                squares = _sum_of_squares(share[start:stop])
                total = total + squares / num_copies

        squared_norm = all_reduce(total, self._groups.mesh)
        return wait_for_device(float, squared_norm.sqrt())

    def _hosted(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a copy on the states' device, in pinned memory if CUDA copies it: several times as fast."""
        made = torch.empty(
            tensor.shape,
            dtype=dtype,
            device=self._states_device,
            pin_memory=self._share.is_cuda,
        )
        return made.copy_(tensor)

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters to the weights, and give every rank the weights of all.

        Collective: over dp.
        """
        if self._states_device is None:
            self._share.copy_(self.master)
        else:
            # Rounded on the states' device, so that no more bytes travel than the weights have.
            self._share.copy_(self._hosted(self.master, self._dtype))
        gather(self._weights.buffer, self._groups)


def _early_sums(weights: FlatTensors, names: Collection[str] | None, groups: Groups) -> EarlySums | None:
    if names is None or groups.dp is None:
        return None
    return EarlySums(weights.spans, names, len(weights.buffer), groups)


def _sum_of_squares(x: Tensor) -> Tensor:
    """Return the sum of squares of a float32 `[N]`, as a float64 scalar and without a copy of x."""
    num_rows = len(x) // _NORM_WIDTH
    num_whole = num_rows * _NORM_WIDTH
    rows = x[:num_whole].view(-1, _NORM_WIDTH)
    norms = torch.linalg.vector_norm(rows, dim=1)
    of_rows = norms.double().square().sum()

    rest = x[num_whole:]
    of_rest = rest.double().square().sum()
    return of_rows + of_rest
