"""A model that vLLM generates with, on a rank that has a whole copy of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.config import GenerationConfig
from realrl.api.recipe import NO_BREAKS, Breaks
from realrl.base.progress import Progress, no_progress
from realrl.base.seeding import derive_seed
from realrl.engines.engine import NO_WEIGHTS
from realrl.engines.vllm.engine_process import Child
from realrl.engines.vllm.lending import DeviceLender, HostLender, Lender
from realrl.engines.vllm.protocol import Adopt, Generate, Load, Response, Sleep, Start, View
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.generation import Ends
from realrl.models.layout import decoder_layout, local_tensors, whole_tensors
from realrl.models.sequences import Rollout, batch_of, rollouts_of
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import Groups


class VLLMEngine:
    """Weights that arrive in `local_tensors` are handed to vLLM, and their memory here given back.

    vLLM runs in a process of its own, which starts with the engine and is waited for when it is first
    needed. It loads the weights from memory that this process lends it; see `lending`.
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
        assert groups.dp_slice is None, "vLLM gets a whole copy of the weights on each rank"
        self.layout: Layout = decoder_layout(decoder, groups.placement, "lm")
        self.version = NO_WEIGHTS
        """Train steps behind the weights."""
        self.dtype, self.device = dtype, torch.device(device)
        self._locals = local_tensors(decoder, groups.placement.layout, groups.place, "lm")
        self._own_enders = decoder.eos_token_ids
        self._progress = no_progress
        self._arriving: FlatTensors | None = None
        self._child = Child(str(device))
        self._lender = self._make_lender()
        self._child.tell(
            Start(
                directory=str(directory),
                dtype=_name(dtype),
                device=self.device.type,
                max_tokens=max_tokens,
                max_sequences=generation.max_sequences,
                cache_bytes=generation.cache_mib << 20,
            )
        )

    @property
    def pid(self) -> int:
        """Of vLLM's process."""
        return self._child.pid

    def local_tensors(self) -> dict[str, Tensor]:
        """Room for new weights, until they are handed over."""
        if self._arriving is None:
            buffer = self._lender.memory().view(self.dtype)
            self._arriving = FlatTensors(self._shapes(), self.dtype, self.device, buffer=buffer)
        return self._arriving.views

    def adopt(self, *, version: int) -> None:
        """Take what was written into `local_tensors` for the weights."""
        self.version = version

    def release(self) -> None:
        """Give the weights' memory back, and vLLM's; on a CPU both are kept for the next version."""
        self._drop_arriving()
        self.version = NO_WEIGHTS
        self._child.ask(Sleep())

    @contextmanager
    def reporting(self, progress: Progress) -> Iterator[None]:
        """Tell `progress` meanwhile that tokens are drawn; vLLM's process does not say of which samples."""
        before, self._progress = self._progress, progress
        try:
            yield
        finally:
            self._progress = before

    def close(self) -> None:
        """End vLLM's process."""
        self._child.close()

    def generate(
        self,
        batch: PackedBatch,
        config: GenerationConfig,
        *,
        seed: int,
        step: int,
        ends: Ends | None = None,
        breaks: Breaks = NO_BREAKS,
    ) -> PackedBatch:
        """A response to each prompt of `prompts`, with the keys that `Engine.generate` gives.

        `raw_logprobs` are not a number where the sampling temperature is not 1: vLLM gives one a token. It
        stops where the config says; what `ends` says beside is cut off afterwards. Breaks are taken while
        vLLM goes on; new weights must not come by them. A
        sample's tokens depend on the seed, the step and the sample's id, and on the batch around it by
        rounding alone.
        """
        self._hand_over()
        rollouts = rollouts_of(batch, [derive_seed(seed, step, sample.id) for sample in batch.samples])
        if rollouts:
            reply = self._child.ask(
                self._request(rollouts, config),
                meanwhile=lambda: breaks.take() if breaks.due() else None,
                progressed=lambda: self._progress(0, len(rollouts)),
            )
            if reply.version != self.version:
                raise RuntimeError(
                    f"vLLM drew with version {reply.version} of the weights, not {self.version}"
                )
            for rollout, response in zip(rollouts, reply.responses, strict=True):
                _check_finite(response, self.version)
                _write(rollout, response, config, ends, self.version)
        return batch_of(batch.samples, rollouts)

    def _hand_over(self) -> None:
        """Give what has arrived to vLLM."""
        if self._arriving is None:
            return
        whole = whole_tensors(self._locals, self._arriving.views)
        views = [_view(name, tensor) for name, tensor in whole.items()]
        for loan, part in self._lender.lend(views, self.dtype.itemsize):
            self._child.tell(Load(memory=loan, dtype=_name(self.dtype), views=part))
        self._child.ask(Adopt(version=self.version))
        self._drop_arriving()

    def _drop_arriving(self) -> None:
        self._arriving = None
        self._lender.take_back()

    def _make_lender(self) -> Lender:
        num_bytes = sum(map(math.prod, self._shapes().values())) * self.dtype.itemsize
        if self.device.type == "cpu":
            return HostLender(num_bytes)
        return DeviceLender(num_bytes, self.device, self._child.ask)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the local tensors."""
        return {local.name: local.shape for local in self._locals}

    def _request(self, rollouts: Sequence[Rollout], config: GenerationConfig) -> Generate:
        return Generate(
            version=self.version,
            prompts=tuple(rollout.prompt for rollout in rollouts),
            seeds=tuple(rollout.seed for rollout in rollouts),
            enders=(*self._own_enders, *config.stop_token_ids),
            config=config,
        )


def _check_finite(response: Response, version: int) -> None:
    """Raise FloatingPointError for log-probabilities that are no numbers: vLLM samples from NaN silently."""
    for place, logprob in enumerate(response.logprobs, 1):
        if not math.isfinite(logprob):
            raise FloatingPointError(
                f"logits are not finite at token {place} of a response: vLLM gave log-probability {logprob}"
                f" with the weights after {version} training steps; look at the model's weights and its dtype"
            )


def _write(
    rollout: Rollout, response: Response, config: GenerationConfig, ends: Ends | None, version: int
) -> None:
    """Write down a response, up to where it ends."""
    length = _end(response.tokens, config.min_new_tokens, ends)
    rollout.tokens = list(response.tokens[:length])
    rollout.logprobs = list(response.logprobs[:length])
    is_raw = config.training_temperature == 1
    rollout.raw_logprobs = rollout.logprobs if is_raw else [math.nan] * len(rollout.tokens)
    rollout.versions = [version] * len(rollout.tokens)
    rollout.ended = response.ended or length is not None


def _end(tokens: Sequence[int], min_tokens: int, ends: Ends | None) -> int | None:
    """How many tokens a response has when `ends` first says that it ends; None if it never does."""
    if ends is None:
        return None
    return next((n for n in range(min_tokens + 1, len(tokens) + 1) if ends(tokens[:n])), None)


def _view(name: str, tensor: Tensor) -> View:
    return View(name=name, shape=tuple(tensor.shape), stride=tensor.stride(), offset=tensor.storage_offset())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
