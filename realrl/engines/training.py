"""One optimizer step: gradients of a loss over micro-batches, and the update of the masters.

micro-batches ──▶ loss ──▶ gradients ──▶ accept? ──▶ sum what ranks share ──▶ update
                                            │ no
                                            └──▶ discard
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.config import OptimizerConfig
from realrl.api.device_metrics import read
from realrl.api.engine import Loss
from realrl.api.metrics import Mean, Metrics, joined
from realrl.engines.gradients import copies, finished_by_products, sum_shared
from realrl.engines.host_copies import Arrival, HostCopy
from realrl.engines.master_dither import spread
from realrl.engines.passes import StagePasses
from realrl.layouts.layout import Layout
from realrl.models.decoder import Decoder
from realrl.models.layout import LocalTensor
from realrl.ops.linear import WeightGradients
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch
from realrl.parallel.optimizer import ShardedAdamW
from realrl.parallel.pipeline import Passed

LossInputs = Callable[[Tensor, Microbatch], tuple[Tensor, PackedBatch]]
"""`(hidden [U, H], micro-batch) -> (numbers [T], the micro-batch that the loss sees)`."""


@dataclass(frozen=True)
class TrainStep:
    """What one optimizer step does."""

    inputs: LossInputs
    loss: Loss
    lr: float
    accept: Callable[[], bool] = lambda: True
    """Asked once all micro-batches are done: False leaves the update out."""


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
            _accumulate_into(self.gradient(name), weight)

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

    def step(
        self,
        passes: StagePasses,
        micros: Sequence[Microbatch],
        train_step: TrainStep,
        *,
        passed: Passed,
        require_finite: Callable[[bool], None],
    ) -> Metrics:
        """Make one optimizer step; `require_finite` raises if it is told that the loss's inputs are not.

        What micro-batches report is read after the last of them, so that the host does not wait for each.
        """
        metrics: list[Metrics] = []
        are_finite: list[Tensor] = []

        def loss(hidden: Tensor, micro: Microbatch) -> Tensor:
            """Return a micro-batch's loss, and note what it reports."""
            numbers, seen = train_step.inputs(hidden, micro)
            is_finite = numbers.detach().isfinite().all()
            are_finite.append(is_finite)
            its_loss, its_metrics = train_step.loss(numbers, seen)
            metrics.append(its_metrics)
            return its_loss

        passes.train(micros, loss, self.weight_gradients, passed)
        if are_finite:
            all_finite = torch.stack(are_finite).all()
            require_finite(bool(all_finite))

        found = read(joined(*metrics))
        if not train_step.accept():
            self.optimizer.discard()
            return found

        sum_shared(passes.model, self.gradient, self._tensors)
        return joined(found, self._update(train_step.lr))

    def _update(self, lr: float) -> Metrics:
        """Update the weights, unless the gradient is not finite; then there is no norm to report."""
        norm = self.optimizer.step(lr)
        is_skipped = not math.isfinite(norm)
        metrics = {"lr": Mean(lr, 1.0), "skipped_updates": Mean(float(is_skipped), 1.0)}
        if is_skipped:
            return metrics
        return {"grad_norm": Mean(norm, 1.0), **metrics}

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


def _accumulate_into(gradient: Tensor, weight: Tensor) -> None:
    """Add each micro-batch's gradient to a float32 sum, whatever the weight's type."""

    def add(weight: Tensor) -> None:
        """Move the new gradient into the sum."""
        assert weight.grad is not None, "a hook after accumulation has a gradient"
        gradient.add_(weight.grad)
        weight.grad = None

    weight.requires_grad_().register_post_accumulate_grad_hook(add)
