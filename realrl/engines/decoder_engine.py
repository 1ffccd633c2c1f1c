"""realrl's own engine: a packed decoder on a placement, seen from one rank.

decoder_engine       what it computes: responses, log-probabilities, values, optimizer steps
  ├── generating     what all engines share of generation
  ├── training       gradients and the optimizer
  └── holding        weights and their versions
        └── device_weights   where the weights are: on the device, in host memory

micro-batches ──▶ loss ──▶ gradients ──▶ accept? ──▶ sum what ranks share ──▶ update
                                            │ no
                                            └──▶ discard
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch, Sample
from realrl.api.device_metrics import read
from realrl.api.engine import Loss
from realrl.api.metrics import Mean, Metrics, joined
from realrl.engines.generating import GenerationRequest
from realrl.engines.gradients import sum_shared
from realrl.engines.holding import HoldingEngine
from realrl.engines.options import EngineOptions
from realrl.engines.training import Training
from realrl.models.config import DecoderConfig
from realrl.models.generation import Generator
from realrl.models.layout import Head
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch, split
from realrl.parallel.pipeline import StageLink
from realrl.parallel.pipeline_schedule import Kind, forward_order, training_order

_LOGPROBS = "log-probabilities"
_VALUES = "values"

_HeadFunction = Callable[[Tensor, Microbatch], tuple[Tensor, PackedBatch]]
"""`(hidden [U, H] behind the last layer, micro-batch) -> (numbers [T], the micro-batch that a loss sees)`."""
_Passed = Callable[[float], None]
"""Called after each pass of a micro-batch with the share of all passes of this stage that are done."""
_Key = tuple[int, int]
"""Index of a micro-batch, and a chunk."""
_Held = dict[_Key, tuple[Tensor | None, Tensor]]
"""Input and output of a chunk between the forward and the backward pass of a micro-batch."""
_PutOff = dict[_Key, list[Callable[[], None]]]
"""Products of a chunk's backward pass that give the gradients of weights."""


class DecoderEngine(HoldingEngine):
    """A decoder on a placement; see `api.engine` for what its methods promise.

    On CUDA a sample's tokens depend on the batch around it by rounding: products are summed in another order
    when more sequences are decoded.
    """

    def __init__(self, decoder: DecoderConfig, head: Head, groups: Groups, options: EngineOptions) -> None:
        """Make an engine without weights, or with zeros that are to be trained."""
        super().__init__(decoder, head, groups, options)
        device = options.torch_device
        self.link = StageLink(groups, decoder.hidden_size, options.dtype, device)
        # CUDA's flash attention has no window across a prefix.
        has_window = any(window is not None for window in decoder.windows)
        can_share = device.type != "cuda" or not has_window
        self.split = partial(
            split,
            max_tokens=options.max_tokens_per_microbatch,
            share_prompts=options.share_prompts and can_share,
            device=device,
        )
        """Returns a batch's micro-batches; see `parallel.microbatch.split`."""

    def logprobs(self, batch: PackedBatch, *, temperature: float) -> Tensor | None:
        """Return each masked token's log-probability; see `api.engine.Infers.logprobs`."""
        head = partial(self.model.logprobs, temperature=temperature)
        return self._infer(batch, head, _LOGPROBS)

    def values(self, batch: PackedBatch) -> Tensor | None:
        """Return the value of the state after each token; see `api.engine.Infers.values`."""
        return self._infer(batch, self.model.values, _VALUES)

    def train_logprobs(
        self,
        batch: PackedBatch,
        loss: Loss,
        *,
        lr: float,
        temperature: float,
        whole_rows: bool = False,
        accept: Callable[[], bool] = lambda: True,
    ) -> Metrics:
        """Make one optimizer step on a loss of `logprobs`; see `api.engine.Trains.train_logprobs`."""
        head = partial(self.model.logprobs, temperature=temperature)
        measured = _MeasuredLoss(head, loss)
        return self._train(batch, measured, _LOGPROBS, lr, whole_rows=whole_rows, accept=accept)

    def train_values(self, batch: PackedBatch, loss: Loss, *, lr: float, whole_rows: bool = False) -> Metrics:
        """Make one optimizer step on a loss of `values`; see `api.engine.Trains.train_values`."""
        measured = _MeasuredLoss(self.model.values, loss)
        return self._train(batch, measured, _VALUES, lr, whole_rows=whole_rows, accept=lambda: True)

    def _draw(self, request: GenerationRequest) -> None:
        """Draw with the weights that are current at each token."""
        self.local_tensors()
        generator = Generator(
            self.model,
            self.link,
            request.config,
            max_prefill_tokens=self.options.max_tokens_per_microbatch,
            ends=request.stops,
            version=lambda: self.version,
            kept=self._decoding,
            preemption=request.preemption,
            progress=self._progress,
            why_not_finite=self._why_not_finite,
        )
        generator.run(request.rollouts)

    def _infer(self, batch: PackedBatch, head: _HeadFunction, what: str) -> Tensor | None:
        """Return a head's numbers in the order of the batch's samples, on the CPU: `[T]`.

        Collective: over the slice. None except on the last stage.
        """
        self.end_decoding()
        micros = self.split(batch)
        self.local_tensors()
        passed = self._passed(len(batch))
        by_sample: dict[Sample, Tensor] = {}
        order = list(forward_order(self.link.layout, len(micros)))
        with torch.no_grad():
            for number, (_, index, chunk) in enumerate(order, start=1):
                micro = micros[index]
                num_rows = self.model.num_rows(micro.num_tokens)
                hidden = self.link.receive("hidden", num_rows, chunk)
                output = self.model.forward_micro(micro, hidden, chunk)
                if self.link.is_last(chunk):
                    output = head(output, micro)[0]
                    numbers = output.split(micro.batch.lengths)
                    by_sample.update(zip(micro.batch.samples, numbers, strict=True))
                self.link.send("hidden", output, chunk)
                # Between two passes, only the numbers of samples are kept.
                del hidden, output
                passed(number / len(order))

        self.link.finish()
        if not self.model.is_last:
            return None
        assert len(by_sample) == len(batch), "each sample is once in the batch, and in one micro-batch"
        in_order = [by_sample[sample] for sample in batch.samples]
        found = torch.cat(in_order).cpu() if in_order else torch.empty(0)
        is_finite = found.isfinite().all()
        self._require_finite(bool(is_finite), what)
        return found

    def _train(
        self,
        batch: PackedBatch,
        loss: _MeasuredLoss,
        what: str,
        lr: float,
        *,
        whole_rows: bool,
        accept: Callable[[], bool],
    ) -> Metrics:
        """Make one optimizer step, unless `accept` returns False after the last micro-batch."""
        training = self.training
        assert training is not None, "the weights are not trained at this placement"
        self.end_decoding()
        micros = self.split(batch, whole_rows=whole_rows)
        self.local_tensors()
        self._accumulate(training, micros, loss, self._passed(len(batch)))
        self._require_finite(loss.is_finite(), what)
        metrics = loss.metrics()
        if not accept():
            training.optimizer.discard()
            return metrics

        sum_shared(self.model, training.gradient, self._tensors)
        norm = training.optimizer.step(lr)
        return joined(metrics, _update_metrics(lr, norm))

    def _accumulate(
        self, training: Training, micros: Sequence[Microbatch], loss: _MeasuredLoss, passed: _Passed
    ) -> None:
        """Add up the gradients of the sum of `loss` over micro-batches."""
        weight_gradients = training.weight_gradients
        link = self.link
        held: _Held = {}
        put_off: _PutOff = {}
        order = list(training_order(link.layout, link.pp_rank, len(micros)))
        for number, (kind, index, chunk) in enumerate(order, start=1):
            micro = micros[index]
            num_rows = self.model.num_rows(micro.num_tokens)
            if weight_gradients is not None:
                weight_gradients.is_last = index == len(micros) - 1

            if kind is Kind.FORWARD:
                hidden = link.receive("hidden", num_rows, chunk)
                if hidden is not None:
                    hidden.requires_grad_()
                output = self.model.forward_micro(micro, hidden, chunk)
                if link.is_last(chunk):
                    output = loss(output, micro)
                link.send("hidden", output, chunk)
                held[index, chunk] = hidden, output
            elif kind is Kind.BACKWARD:
                hidden, output = held.pop((index, chunk))
                gradient = link.receive("gradient", num_rows, chunk)
                torch.autograd.backward(output, gradient)
                if hidden is not None and hidden.grad is not None:
                    link.send("gradient", hidden.grad, chunk)
                if weight_gradients is not None:
                    put_off[index, chunk] = weight_gradients.take()
                # Between two passes, no activations are kept but those that are held.
                del hidden, output, gradient
            elif weight_gradients is not None:
                _compute(put_off.pop((index, chunk)))
            passed(number / len(order))

        link.finish()

    def _passed(self, num_samples: int) -> _Passed:
        """Return a function that reports the share of some samples' passes that is done."""
        progress = self._progress
        return lambda share: progress(int(share * num_samples), num_samples)


class _MeasuredLoss:
    """A loss of a head's numbers, with what it reports of each micro-batch.

    The reports are read after the last micro-batch, so that the host does not wait for each.
    """

    def __init__(self, head: _HeadFunction, loss: Loss) -> None:
        self._head = head
        self._loss = loss
        self._metrics: list[Metrics] = []
        self._are_finite: list[Tensor] = []

    def __call__(self, hidden: Tensor, micro: Microbatch) -> Tensor:
        """Return a micro-batch's loss, from the hidden states behind the last layer."""
        numbers, seen = self._head(hidden, micro)
        is_finite = numbers.detach().isfinite().all()
        self._are_finite.append(is_finite)

        loss, metrics = self._loss(numbers, seen)
        self._metrics.append(metrics)
        return loss

    def is_finite(self) -> bool:
        """Return whether all numbers of the head were finite."""
        if not self._are_finite:
            return True
        all_finite = torch.stack(self._are_finite).all()
        return bool(all_finite)

    def metrics(self) -> Metrics:
        """Return what the loss reported."""
        return read(joined(*self._metrics))


def _update_metrics(lr: float, norm: float) -> Metrics:
    """Return the metrics of an update; one whose gradient is not finite was skipped, and has no norm."""
    is_skipped = not math.isfinite(norm)
    num_skipped = float(is_skipped)
    metrics = {
        "lr": Mean(lr, 1.0),
        "skipped_updates": Mean(num_skipped, 1.0),
    }
    if is_skipped:
        return metrics
    return {"grad_norm": Mean(norm, 1.0), **metrics}


def _compute(products: list[Callable[[], None]]) -> None:
    """Compute products that were put off, and let go of each right after it."""
    while products:
        products.pop(0)()
