"""realrl's own engine: a packed decoder on a placement, seen from one rank.

decoder_engine   weights and their versions; each method of `api.engine.HomeEngine`
  ├── device_weights  where the weights are: on the device, in host memory
  ├── passes          micro-batches through this rank's pipeline stage
  ├── training        gradients and the optimizer
  └── generating      what all engines share of generation
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.engine import NO_WEIGHTS, Loss
from realrl.api.metrics import Metrics
from realrl.engines.device_weights import DeviceWeights
from realrl.engines.finite import not_finite, why_not_finite
from realrl.engines.generating import GeneratingEngine, GenerationRequest
from realrl.engines.options import EngineOptions
from realrl.engines.passes import StagePasses
from realrl.engines.state import State, state_of
from realrl.engines.training import Training, TrainStep
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.decoder import Decoder
from realrl.models.decoding import KeptDecoding
from realrl.models.generation import Generator
from realrl.models.layout import Head, decoder_layout, local_tensors
from realrl.parallel.groups import Groups
from realrl.parallel.microbatch import Microbatch
from realrl.parallel.pipeline import StageLink
from realrl.parallel.zero_shards import gather
from realrl.realloc import checkpoint

_LOGPROBS = "log-probabilities"
_VALUES = "values"


class DecoderEngine(GeneratingEngine):
    """A decoder on a placement; see `api.engine` for what its methods promise.

    On CUDA a sample's tokens depend on the batch around it by rounding: products are summed in another order
    when more sequences are decoded.
    """

    def __init__(self, decoder: DecoderConfig, head: Head, groups: Groups, options: EngineOptions) -> None:
        """Make an engine without weights, or with zeros that are to be trained."""
        super().__init__(decoder.eos_token_ids)
        self.decoder = decoder
        self.head = head
        self.groups = groups
        self.options = options
        self.layout: Layout = decoder_layout(decoder, groups.placement, head)
        self._tensors = local_tensors(
            decoder,
            groups.placement.layout,
            groups.place,
            head,
        )
        self.weights = self._make_weights()
        self.training = self._make_training()
        self.passes = self._make_passes()
        self._decoding = KeptDecoding()
        if self.training:
            self.local_tensors()

    def local_tensors(self) -> dict[str, Tensor]:
        """Return this rank's weights: brought back if they were offloaded, else allocated."""
        if not self.weights.is_on_device:
            if not self.weights.is_returning and self.weights.is_in_host_memory(self.version):
                self.onload()
            self._allocate()

        return self.weights.flat.views

    def adopt(self, *, version: int) -> None:
        """Take what was written into `local_tensors` as the weights."""
        self.local_tensors()
        if self.training:
            masters = self.training.optimizer.gradients
            masters.copy_(self.weights.flat.buffer)

        self._begin(version)

    def release(self) -> None:
        """Free the weights' memory."""
        assert self.training is None, "a model in training may be offloaded, but not released"
        self.end_decoding()
        self.weights.drop()
        self._model.weights = {}
        self.version = NO_WEIGHTS

    def end_decoding(self) -> None:
        """Free what is kept between generations: the cache, and steps that were recorded with it."""
        self._decoding.drop()

    def close(self) -> None:
        """Return at once: nothing of this engine runs outside of it."""

    def offload(self) -> None:
        """Move weights and optimizer states to host memory.

        Weights that are there in the same version are not copied again.
        """
        self.end_decoding()
        if not self.weights.is_in_host_memory(self.version):
            self.local_tensors()
            self.weights.copy_to_host(self.version)

        if self.training:
            if self.weights.is_on_device:
                self.training.put_away()
            self.training.cancel_return()

        self.weights.drop()
        self._model.weights = {}

    def onload(self) -> None:
        """Begin to bring back what was offloaded; the first use waits for it."""
        if self.weights.is_on_device:
            return
        self.weights.begin_return()
        if self.training:
            self.training.begin_return()

    def load(self, directory: Path) -> None:
        """Read this rank's boxes from a Hugging Face checkpoint.

        A scalar head that the checkpoint lacks starts at zero.

        Raises:
            ValueError: a weight is missing, has another shape, or has NaN or infinities.
        """
        base = self.decoder.names.base
        weights = self.local_tensors()
        target = self.training.gradients() if self.training else weights
        wanted = self._boxes_in(directory)
        checkpoint.load(
            directory,
            wanted,
            self.groups.rank,
            target,
            base=base,
        )
        self._begin(version=0)
        own_shards = self.layout.shards(self.groups.rank)
        if name := not_finite(own_shards, weights):
            dtype = str(self.options.dtype).removeprefix("torch.")
            raise ValueError(
                f"{directory}: the weight {name} has NaN or infinities as {dtype}; give other weights, or the"
                " dtype that they were made in"
            )

    def state(self) -> State:
        """Return this rank's shard of everything that resuming the model needs, as views."""
        self.local_tensors()
        optimizer = self.training.optimizer if self.training else None
        return state_of(
            self.layout,
            self.groups,
            self.weights.flat,
            optimizer,
        )

    @torch.no_grad()
    def restore(self, directory: Path, *, version: int) -> None:
        """Resume from the states that ranks of any layout wrote to `directory`.

        Collective: over the data-parallel ranks.
        """
        self.state().read(directory)
        if self.training:
            self.training.optimizer.publish()
        else:
            gather(self.weights.flat.buffer, self.groups)

        self.version = version

    def logprobs(self, batch: PackedBatch, *, temperature: float) -> Tensor | None:
        """Return each masked token's log-probability; see `api.engine.Infers.logprobs`."""

        def head(hidden: Tensor, micro: Microbatch) -> Tensor:
            """Leave the entropies out."""
            logprobs, _ = self.passes.logprobs(hidden, micro, temperature)
            return logprobs

        return self._infer(batch, head, _LOGPROBS)

    def values(self, batch: PackedBatch) -> Tensor | None:
        """Return the value of the state after each token; see `api.engine.Infers.values`."""
        return self._infer(batch, self.passes.values, _VALUES)

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

        def inputs(hidden: Tensor, micro: Microbatch) -> tuple[Tensor, PackedBatch]:
            """Give the loss the entropies too."""
            logprobs, entropy = self.passes.logprobs(hidden, micro, temperature)
            return logprobs, micro.batch.with_keys(tokens={"entropy": entropy})

        micros = self.passes.split(batch, whole_rows=whole_rows)
        return self._train(micros, TrainStep(inputs, loss, lr, accept), _LOGPROBS)

    def train_values(self, batch: PackedBatch, loss: Loss, *, lr: float, whole_rows: bool = False) -> Metrics:
        """Make one optimizer step on a loss of `values`; see `api.engine.Trains.train_values`."""

        def inputs(hidden: Tensor, micro: Microbatch) -> tuple[Tensor, PackedBatch]:
            """Give the loss the micro-batch as it is."""
            return self.passes.values(hidden, micro), micro.batch

        micros = self.passes.split(batch, whole_rows=whole_rows)
        return self._train(micros, TrainStep(inputs, loss, lr), _VALUES)

    def _draw(self, request: GenerationRequest) -> None:
        """Draw with the weights that are current at each token."""
        self.local_tensors()
        generator = Generator(
            self._model,
            self.passes.link,
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

    def _infer(
        self, batch: PackedBatch, head: Callable[[Tensor, Microbatch], Tensor], what: str
    ) -> Tensor | None:
        self.end_decoding()
        micros = self.passes.split(batch)
        self.local_tensors()
        found = self.passes.infer(
            batch,
            micros,
            head,
            self._passed(len(batch)),
        )
        if found is not None:
            is_finite = found.isfinite().all()
            self._require_finite(bool(is_finite), what)

        return found

    def _train(self, micros: list[Microbatch], step: TrainStep, what: str) -> Metrics:
        assert self.training is not None, "the weights are not trained at this placement"
        self.end_decoding()
        self.local_tensors()
        num_samples = sum(len(micro.batch) for micro in micros)
        return self.training.step(
            self.passes,
            micros,
            step,
            passed=self._passed(num_samples),
            require_finite=lambda is_finite: self._require_finite(is_finite, what),
        )

    def _passed(self, num_samples: int) -> Callable[[float], None]:
        """Return a function that reports the share of some samples' passes that is done."""
        progress = self._progress
        return lambda share: progress(int(share * num_samples), num_samples)

    @property
    def _model(self) -> Decoder:
        return self.passes.model

    def _make_weights(self) -> DeviceWeights:
        placement = self.groups.placement
        shapes = {tensor.name: tensor.shape for tensor in self._tensors}
        options = self.options
        # Data-parallel ranks divide the buffer evenly.
        multiple_of = placement.layout.dp
        return DeviceWeights(
            shapes,
            options.dtype,
            options.torch_device,
            multiple_of=multiple_of,
        )

    def _make_training(self) -> Training | None:
        options = self.options
        if options.optimizer is None:
            return None
        return Training(
            options.optimizer,
            self.layout,
            self.groups,
            self._tensors,
            adds_products=options.adds_products,
            sum_early=options.sum_early,
        )

    def _make_passes(self) -> StagePasses:
        options = self.options
        device = options.torch_device
        model = Decoder(
            self.decoder,
            self.groups,
            self.head,
            {},
            deterministic=options.deterministic,
            recompute=options.gradient_checkpointing,
            weight_gradients=self.training.weight_gradients if self.training else None,
            sequence_pieces=options.sequence_pieces,
        )
        return StagePasses(
            model,
            StageLink(self.groups, self.decoder.hidden_size, options.dtype, device),
            device=device,
            max_tokens=options.max_tokens_per_microbatch,
            share_prompts=options.share_prompts,
        )

    def _allocate(self) -> None:
        """Allocate the weights, with the values that are on their way back if there are any."""
        self.weights.allocate()
        self._model.weights = self.weights.flat.views
        if self.training:
            self.training.attach(self.weights.flat, self._model)
            # The copy is out of date after the next step.
            self.weights.drop_host_copy()

    def _boxes_in(self, directory: Path) -> Layout:
        """Return the boxes to read from a checkpoint: all, except of a scalar head that it lacks."""
        head = self.decoder.scalar_head
        present = checkpoint.file_layout(directory, self.decoder.names.base).extents()
        if head in present:
            return self.layout
        others = [pattern for pattern in self.layout.patterns if pattern.tensor != head]
        return Layout(tuple(others))

    def _begin(self, version: int) -> None:
        """Begin with the weights, or if they are trained, with the masters in the memory of the gradients."""
        self.version = version
        if self.training:
            self.training.begin()

    def _require_finite(self, is_finite: bool, what: str) -> None:
        if not is_finite:
            raise FloatingPointError(f"{what} are not finite: {self._why_not_finite()}")

    def _why_not_finite(self) -> str:
        """Name this rank's weights that are to blame, as in the checkpoint, or say that none is."""
        own_shards = self.layout.shards(self.groups.rank)
        return why_not_finite(own_shards, self.weights.flat.views, self.version)
