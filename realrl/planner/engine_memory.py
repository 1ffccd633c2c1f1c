"""What an engine's calls take of a rank's memory, predicted from configs alone."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from realrl.api.config import GenerationConfig
from realrl.models.generation import PACKING_PAYS
from realrl.ops.cache import KeyValueCache
from realrl.parallel.groups import Links
from realrl.parallel.pipeline import max_sending
from realrl.parallel.pipeline_schedule import Kind, training_order
from realrl.planner.model_memory import Stage


class MemoryUse(NamedTuple):
    """Bytes of one rank, by what they are for."""

    weights_bytes: int = 0
    """Copies that generation packs among them."""
    optimizer_bytes: int = 0
    """Float32 masters, moments and gradients."""
    activations_bytes: int = 0
    """Kept for a backward pass, or on the way."""
    cache_bytes: int = 0
    """Keys and values."""
    staging_bytes: int = 0
    """Messages in which weights move, and other buffers of communication."""
    context_bytes: int = 0
    """What CUDA itself takes, for this process and for a vLLM process beside it, and NCCL."""

    @property
    def total_bytes(self) -> int:
        return sum(self)

    def __add__(self, other: MemoryUse) -> MemoryUse:
        return MemoryUse(*(a + b for a, b in zip(self, other)))


CONTEXT_BYTES = 600 << 20
"""CUDA's context of a process, with the libraries that it loads and their work space, on Hopper GPUs."""
_GROUP_BYTES, _PAIR_BYTES = 256 << 20, 64 << 20
"""NCCL's buffers for a communicator of a group, and for that of two ranks: a few MiB a channel and peer, with
up to 32 channels."""
_GLOO_BYTES = 2 << 20
"""Of gloo's all-reduce: two segments of a ring (`kMaxSegmentSize` in gloo/allreduce.cc)."""


def context(links: Links, device: str) -> MemoryUse:
    """What is taken before anything is computed, once all communicators have been used."""
    if device == "cpu":
        return MemoryUse()
    return MemoryUse(context_bytes=CONTEXT_BYTES + links.groups * _GROUP_BYTES + links.pairs * _PAIR_BYTES)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a data-parallel rank does in one call."""

    num_micros: int
    num_tokens: int
    """Computed in the fullest micro-batch."""
    num_logits: int
    """Tokens of it that get logits: those of `loss_mask`."""


@dataclass(frozen=True, kw_only=True)
class GenerationLoad:
    """What a data-parallel rank generates in one call."""

    num_sequences: int
    longest_prompt: int
    num_prompt_tokens: int
    """Of all prompts, each of a group's counted once."""


def resident(stage: Stage, *, trained: bool, states_elsewhere: bool = False) -> MemoryUse:
    """Between the calls; `states_elsewhere`: the optimizer keeps gradients alone on the device."""
    gradients = 4 * stage.num_elements
    states = 0 if states_elsewhere else states_bytes(stage)
    return MemoryUse(
        weights_bytes=stage.num_elements * stage.itemsize,
        optimizer_bytes=gradients + states if trained else 0,
    )


def states_bytes(stage: Stage) -> int:
    """Masters and two moments of this rank's share; float32 weights are their own masters."""
    return stage.num_elements // stage.layout.dp * (8 if stage.itemsize == 4 else 12)


def training(stage: Stage, load: Load, *, recompute: bool) -> MemoryUse:
    """Beyond what is resident: the larger of a micro-batch's peak and the optimizer step's."""
    passes = max(
        _forward_peak(stage, load, recompute),
        _backward_peak(stage, load, recompute),
    )
    step = step_bytes(stage)
    if step > passes:
        return MemoryUse(staging_bytes=step)
    return MemoryUse(activations_bytes=passes, staging_bytes=_sum_bytes(stage))


def inference(stage: Stage, load: Load) -> MemoryUse:
    """Beyond the weights: a layer's or the head's tensors, and what was sent before."""
    peak = stage.forward_bytes(load.num_tokens)
    if stage.is_last:
        peak = max(peak, stage.head_forward_bytes(load.num_tokens, load.num_logits, trains=False))
    else:
        num_sent = min(load.num_micros - 1, max_sending(stage.layout))
        peak += num_sent * stage.hidden_bytes(load.num_tokens)
    return MemoryUse(activations_bytes=peak, staging_bytes=_sum_bytes(stage))


def generation(
    stage: Stage, load: GenerationLoad, config: GenerationConfig, *, max_prefill_tokens: int
) -> MemoryUse:
    """Beyond the weights: their packed copies, the cache, and a prefill or the logits of a draw."""
    cache = _Cache(stage, load, config)
    tokens_each = load.num_prompt_tokens / load.num_sequences

    def prefill(num_sequences: int) -> int:
        most = max(max_prefill_tokens, load.longest_prompt)
        return stage.forward_bytes(min(most, round(num_sequences * tokens_each)))

    at_once = min(max(int(max_prefill_tokens / tokens_each), 1), cache.num_started)
    num_last = cache.num_started % at_once
    peaks = [
        (prefill(at_once), cache.bytes_after(cache.num_started - num_last)),
        (prefill(num_last), cache.bytes_after(cache.num_started)),
        (prefill(load.num_sequences - cache.num_started), cache.num_bytes),
        (stage.drawing_bytes(cache.num_running, config), cache.num_bytes),
    ]
    activations, cached = max(peaks, key=sum)
    packed = stage.packed_bytes if config.max_new_tokens >= PACKING_PAYS else 0
    return MemoryUse(
        weights_bytes=packed,
        activations_bytes=activations,
        cache_bytes=cached,
        staging_bytes=_sum_bytes(stage),
    )


class _Cache:
    """Pages for as many sequences as run at once, or for what is allowed."""

    def __init__(self, stage: Stage, load: GenerationLoad, config: GenerationConfig) -> None:
        page_bytes = KeyValueCache.page_bytes(**stage.cache_shape())
        page_tokens = KeyValueCache.tokens_of_page(stage.device)
        pages_each = -(-(load.longest_prompt + config.max_new_tokens) // page_tokens)
        pages_of_prompt = -(-load.longest_prompt // page_tokens)
        self.num_running = min(config.max_sequences, load.num_sequences)
        needed = self.num_running * pages_each
        num_pages = min((config.cache_mib << 20) // page_bytes, needed) if config.cache_mib else needed
        self.num_started = max(min(self.num_running, num_pages // (pages_of_prompt + 1)), 1)
        """Sequences that start before one ends: each keeps a page to grow into."""
        if stage.device == "cpu":
            num_pages = min(num_pages, self.num_started * pages_each)
        self.num_bytes = (num_pages + 1) * page_bytes  # with the one that recorded steps write to
        self._bytes_each = pages_of_prompt * page_bytes if stage.device == "cpu" else self.num_bytes

    def bytes_after(self, num_prompts: int) -> int:
        """When so many prompts are in it: on the CPU, memory is taken when it is written to.

        Where pages of the system are huge, up to one more of them in each layer.
        """
        return min(num_prompts * self._bytes_each, self.num_bytes)


def step_bytes(stage: Stage) -> int:
    """What the optimizer's step takes beyond its states.

    On CUDA gradients are summed where they are, and a copy of the share's new weights is sent. On the CPU
    there is the share of the sum, and gloo sums in a copy of all gradients.
    """
    if stage.layout.dp == 1:
        return 0
    share = stage.num_elements // stage.layout.dp
    return share * stage.itemsize if stage.device == "cuda" else 4 * (share + stage.num_elements)


def _sum_bytes(stage: Stage) -> int:
    """For sums over tensor-parallel ranks."""
    return _GLOO_BYTES if stage.layout.tp > 1 and stage.device == "cpu" else 0


def _in_flight(stage: Stage, load: Load) -> int:
    """Micro-batches of which something is kept when the stage has most of them."""
    until = Kind.WEIGHTS if stage.device == "cuda" else Kind.BACKWARD
    changes = {Kind.FORWARD: 1, until: -1}
    order = training_order(stage.layout, stage.place.pp_rank, load.num_micros)
    held = accumulate(changes.get(step.kind, 0) for step in order)
    return -(-max(held, default=0) // stage.layout.vp)


def _sent_bytes(stage: Stage, load: Load) -> int:
    """Outputs and gradients of earlier micro-batches, some of which stay until later ones are sent."""
    directions = (not stage.is_last) + (not stage.is_first)
    num = min(directions * (load.num_micros - _in_flight(stage, load)), max_sending(stage.layout))
    return num * stage.hidden_bytes(load.num_tokens)


def _forward_peak(stage: Stage, load: Load, recompute: bool) -> int:
    kept = stage.kept_bytes(load.num_tokens, recompute=recompute)
    earlier = (_in_flight(stage, load) - 1) * kept + _sent_bytes(stage, load)
    layers = stage.kept_bytes(load.num_tokens, recompute=recompute) + stage.forward_bytes(load.num_tokens)
    layers -= stage.hidden_bytes(load.num_tokens)
    head = stage.head_forward_bytes(load.num_tokens, load.num_logits, trains=True) if stage.is_last else 0
    return earlier + max(layers if recompute else 0, kept + head)


def _backward_peak(stage: Stage, load: Load, recompute: bool) -> int:
    tokens = load.num_tokens
    kept = stage.kept_bytes(tokens, recompute=recompute)
    tied = stage.tied_gradient_bytes
    peaks = [
        kept + tied + stage.backward_bytes(tokens, recompute=recompute),
        stage.embedding_gradient_bytes + stage.hidden_bytes(tokens),
    ]
    if stage.is_last:
        peaks.append(kept + stage.head_backward_bytes(tokens, load.num_logits))
        peaks.append(kept + stage.head_gradient_bytes(tokens))
    return (_in_flight(stage, load) - 1) * kept + _sent_bytes(stage, load) + max(peaks)
