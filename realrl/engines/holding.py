"""The weights of realrl's own engine on one rank, with their versions: loaded, offloaded, saved, released."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from realrl.api.engine import NO_WEIGHTS
from realrl.engines.device_weights import DeviceWeights
from realrl.engines.finite import not_finite, why_not_finite
from realrl.engines.generating import GeneratingEngine
from realrl.engines.options import EngineOptions
from realrl.engines.state import State, state_of
from realrl.engines.training import Training
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.decoder import Decoder
from realrl.models.decoding import KeptDecoding
from realrl.models.layout import Head, decoder_layout, local_tensors
from realrl.parallel.groups import Groups
from realrl.parallel.zero_shards import gather
from realrl.realloc import checkpoint


class HoldingEngine(GeneratingEngine):
    """The part of `DecoderEngine` that holds a decoder: `api.engine.HoldsWeights` and `KeepsState`."""

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
        self.model = Decoder(
            decoder,
            groups,
            head,
            {},
            deterministic=options.deterministic,
            recompute=options.gradient_checkpointing,
            weight_gradients=self.training.weight_gradients if self.training else None,
            sequence_pieces=options.sequence_pieces,
        )
        self._decoding = KeptDecoding()
        if self.training:
            self.local_tensors()

    def local_tensors(self) -> dict[str, Tensor]:
        """Return this rank's weights: brought back if they were offloaded, else allocated."""
        weights = self.weights
        if weights.is_on_device:
            return weights.flat.views

        if not weights.is_returning and weights.is_in_host_memory(self.version):
            self.onload()
        weights.allocate()
        self.model.weights = weights.flat.views
        if self.training:
            self.training.attach(weights.flat, self.model)
            # The copy is out of date after the next step.
            weights.drop_host_copy()
        return weights.flat.views

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
        self.model.weights = {}
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
        self.model.weights = {}

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
