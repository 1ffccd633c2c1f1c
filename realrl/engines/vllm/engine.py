"""A model that vLLM generates with, on a rank that has a whole copy of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.api.engine import NO_WEIGHTS
from realrl.engines.generating import GeneratingEngine, GenerationRequest
from realrl.engines.refusal import RefusesScoring
from realrl.engines.vllm.engine_process import Child
from realrl.engines.vllm.lending import DeviceLender, HostLender, Lender
from realrl.engines.vllm.protocol import (
    Adopt,
    Generate,
    Generated,
    Load,
    Probe,
    Probed,
    Ready,
    Response,
    Sleep,
    Start,
    View,
)
from realrl.layouts.layout import Layout, Shape
from realrl.models.config import DecoderConfig
from realrl.models.layout import decoder_layout, local_tensors, whole_tensors
from realrl.models.sequences import Rollout
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups

_REFUSAL = (
    "with generation.engine=vllm, the engine of a generate call only generates; score or train in a call of"
    " another kind, or set generation.engine=realrl"
)


class VLLMEngine(GeneratingEngine, RefusesScoring):
    """Hands weights that arrive in `local_tensors` to vLLM, and frees their memory here.

    vLLM runs in a process of its own, which starts with the engine and is waited for when it is first
    needed. It loads the weights from memory that this process lends it; see `lending`.

    `raw_logprobs` are NaN unless the sampling temperature is 1: vLLM gives one log-probability a token.
    Other work runs while vLLM continues, so they must not bring new weights. A sample's tokens depend on the
    batch around it by rounding.
    """

    def __init__(
        self,
        decoder: DecoderConfig,
        groups: Groups,
        *,
        directory: Path,
        dtype: torch.dtype,
        device: torch.device | str,
        generation: GenerationConfig,
        max_tokens: int,
    ) -> None:
        """Start vLLM; `max_tokens` bounds a prompt and its response together."""
        GeneratingEngine.__init__(self, decoder.eos_token_ids)
        RefusesScoring.__init__(self, _REFUSAL)
        assert groups.dp_slice is None, "vLLM gets a whole copy of the weights on each rank"
        self.layout: Layout = decoder_layout(decoder, groups.placement, "lm")
        self._dtype = dtype
        self._device = torch.device(device)
        self._locals = local_tensors(
            decoder,
            groups.placement.layout,
            groups.place,
            "lm",
        )
        self._arriving: FlatTensors | None = None
        self._child = Child(str(device))
        self._lender = self._make_lender()
        start = Start(
            directory=str(directory),
            dtype=_name(dtype),
            device=self._device.type,
            max_tokens=max_tokens,
            max_sequences=generation.max_sequences,
            cache_bytes=generation.cache_mib << 20,
        )
        self._child.tell(start)

    @property
    def pid(self) -> int:
        """Return the id of vLLM's process."""
        return self._child.pid

    def local_tensors(self) -> dict[str, Tensor]:
        """Return memory for new weights, until they are handed over."""
        if self._arriving is None:
            buffer = self._lender.memory().view(self._dtype)
            self._arriving = FlatTensors(
                self._shapes(),
                self._dtype,
                self._device,
                buffer=buffer,
            )

        return self._arriving.views

    def adopt(self, *, version: int) -> None:
        """Take what was written into `local_tensors` as the weights."""
        self.version = version

    def release(self) -> None:
        """Free the weights' memory, and vLLM's; on a CPU both are kept for the next version."""
        self._drop_arriving()
        self.version = NO_WEIGHTS
        self._child.ask(Sleep(), Ready)

    def end_decoding(self) -> None:
        """Return at once: vLLM keeps its cache in its own memory."""

    def close(self) -> None:
        """End vLLM's process."""
        self._child.close()

    def _draw(self, request: GenerationRequest) -> None:
        """Have vLLM draw all responses, and cut each where its stop rule first ends it."""
        self._hand_over()
        if not request.rollouts:
            return
        reply = self._child.ask(
            self._generate_message(request),
            Generated,
            meanwhile=lambda: request.preemption.run() if request.preemption.pending() else None,
            progressed=lambda: self._progress(0, len(request.rollouts)),
        )
        if reply.version != self.version:
            raise RuntimeError(f"vLLM drew with version {reply.version} of the weights, not {self.version}")
        for rollout, response in zip(request.rollouts, reply.responses, strict=True):
            _check_finite(response, self.version)
            _write(rollout, response, request, self.version)

    def _hand_over(self) -> None:
        """Have vLLM load the weights that have arrived."""
        if self._arriving is None:
            return
        whole = whole_tensors(self._locals, self._arriving.views)
        views = [_view(name, tensor) for name, tensor in whole.items()]
        for loan, part in self._lender.lend(views, self._dtype.itemsize):
            load = Load(memory=loan, dtype=_name(self._dtype), views=part)
            self._child.tell(load)

        self._child.ask(Adopt(version=self.version), Ready)
        self._drop_arriving()

    def _drop_arriving(self) -> None:
        self._arriving = None
        self._lender.take_back()

    def _make_lender(self) -> Lender:
        num_elements = sum(map(math.prod, self._shapes().values()))
        num_bytes = num_elements * self._dtype.itemsize
        if self._device.type == "cpu":
            return HostLender(num_bytes)
        return DeviceLender(num_bytes, self._device, self._probe)

    def _probe(self, probe: Probe) -> Probed:
        """Have vLLM's process read lent memory."""
        return self._child.ask(probe, Probed)

    def _shapes(self) -> Mapping[str, Shape]:
        """Return the shapes of the local tensors."""
        return {local.name: local.shape for local in self._locals}

    def _generate_message(self, request: GenerationRequest) -> Generate:
        prompts = [rollout.prompt for rollout in request.rollouts]
        seeds = [rollout.seed for rollout in request.rollouts]
        return Generate(
            version=self.version,
            prompts=tuple(prompts),
            seeds=tuple(seeds),
            enders=request.stops.token_ids,
            config=request.config,
        )


def _check_finite(response: Response, version: int) -> None:
    """Check log-probabilities: vLLM samples from NaN without an error.

    Raises:
        FloatingPointError: one is not finite.
    """
    for place, logprob in enumerate(response.logprobs, 1):
        if not math.isfinite(logprob):
            raise FloatingPointError(
                f"logits are not finite at token {place} of a response: vLLM gave log-probability {logprob}"
                f" with the weights after {version} training steps; look at the model's weights and its dtype"
            )


def _write(rollout: Rollout, response: Response, request: GenerationRequest, version: int) -> None:
    """Write a response into its rollout, up to where it ends."""
    config = request.config
    length = request.stops.length(response.tokens, config.min_new_tokens)
    tokens = response.tokens[:length]
    logprobs = response.logprobs[:length]
    num_tokens = len(tokens)

    rollout.tokens = list(tokens)
    rollout.logprobs = list(logprobs)
    rollout.raw_logprobs = rollout.logprobs
    if config.training_temperature != 1:
        rollout.raw_logprobs = [math.nan] * num_tokens
    rollout.versions = [version] * num_tokens
    rollout.ended = response.ended or length is not None


def _view(name: str, tensor: Tensor) -> View:
    offset = int(tensor.storage_offset())
    return View(
        name=name,
        shape=tuple(tensor.shape),
        stride=tensor.stride(),
        offset=offset,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
