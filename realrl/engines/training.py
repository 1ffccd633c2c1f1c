"""The training of one rank's weights: their gradients and the optimizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realrl.api.config import OptimizerConfig
from realrl.engines.gradients import accumulate_into, copies, finished_by_products
from realrl.engines.host_copies import Arrival, HostCopy
from realrl.engines.master_dither import spread
from realrl.layouts.layout import Layout
from realrl.models.decoder import Decoder
from realrl.models.layout import LocalTensor
from realrl.ops.linear import WeightGradients
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups
from realrl.parallel.optimizer import ShardedAdamW


class Training:
    """The gradients and the optimizer of one rank's weights.

    While weights are offloaded, there are neither gradients nor, beside the weights, optimizer states.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        layout: Layout,
        groups: Groups,
        tensors: Sequence[LocalTensor],
        *,
        adds_products: bool,
        sum_early: bool,
    ) -> None:
        """Describe the training of `tensors`, whose memory `attach` brings; see `EngineOptions`."""
        self._config = config
        self._layout = layout
        self._groups = groups
        self._tensors = tensors
        self._shapes = {tensor.name: tensor.shape for tensor in tensors}
        self._sum_early = sum_early
        self._weights: FlatTensors | None = None
        self._optimizer: ShardedAdamW | None = None
        self._on_host: dict[str, HostCopy] = {}
        self._arrivals: dict[str, Arrival] = {}
        self.weight_gradients: WeightGradients | None = None
        """Where products add the gradients of matrices, if they do."""
        if adds_products:
            is_pipeline = groups.placement.layout.pp > 1
            self.weight_gradients = WeightGradients(self._sum_of, self._finished, puts_off=is_pipeline)

    @property
    def optimizer(self) -> ShardedAdamW:
        """Return the optimizer."""
        assert self._optimizer is not None, "training begins before its weights are allocated"
        return self._optimizer

    def attach(self, weights: FlatTensors, model: Decoder) -> None:
        """Train `weights`: those of the start, or the same after they were put away."""
        self._weights = weights
        if self._optimizer is None:
            self._optimizer = self._make_optimizer(weights, model)
        else:
            states = {name: arrival.wait() for name, arrival in self._arrivals.items()}
            self._optimizer.bring_back(weights, states)

        # The copies in host memory are out of date after the next step.
        self._arrivals = {}
        self._on_host = {}
        for name, weight in weights.views.items():
            accumulate_into(self.gradient(name), weight)

    def put_away(self) -> None:
        """Let go of the weights, and begin to copy the states that are beside them to host memory."""
        self._weights = None
        states = self.optimizer.put_away()
        self._on_host = {name: HostCopy(state) for name, state in states.items()}

    def begin_return(self) -> None:
        """Begin to bring the states back from host memory."""
        self._arrivals = {name: copy.bring_back() for name, copy in self._on_host.items()}

    def cancel_return(self) -> None:
        """Free the states that were on their way back."""
        self._arrivals = {}

    def gradient(self, name: str) -> Tensor:
        """Return the float32 sum of a weight's gradients, in the weight's shape."""
        start, stop = self._attached().spans[name]
        return self.optimizer.gradients[start:stop].view(self._shapes[name])

    def gradients(self) -> dict[str, Tensor]:
        """Return every weight's gradient."""
        return {name: self.gradient(name) for name in self._shapes}

    def begin(self) -> None:
        """Begin anew with the masters that were written to the memory of the gradients."""
        masters = self.optimizer.gradients
        if self._attached().buffer.dtype == torch.bfloat16:
            spread(self._layout, self._groups.rank, self.gradients())

        self.optimizer.reload(masters)
        masters.zero_()

    def _make_optimizer(self, weights: FlatTensors, model: Decoder) -> ShardedAdamW:
        summed_early = finished_by_products(model, self._tensors) if self._sum_early else None
        return ShardedAdamW(
            weights,
            copies(self._layout, self._groups, weights, self._tensors),
            self._groups,
            self._config,
            states_device="cpu" if self._config.offload else None,
            summed_early=summed_early,
        )

    def _attached(self) -> FlatTensors:
        assert self._weights is not None, "the weights of a training are used while they are put away"
        return self._weights

    def _sum_of(self, weight: Tensor) -> Tensor:
        return self.optimizer.sum_of(weight)

    def _finished(self, weight: Tensor) -> None:
        self.optimizer.finished(weight)
