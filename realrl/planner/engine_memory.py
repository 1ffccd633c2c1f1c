"""Predicts the memory that an engine's calls take on a rank, from configs alone."""

from __future__ import annotations

from dataclasses import dataclass
from operator import add

from realrl.api.config import GenerationConfig
from realrl.models.generation import PACKING_PAYS
from realrl.ops.cache import KeyValueCache
from realrl.parallel.groups import Links
from realrl.parallel.pipeline import max_sending
from realrl.parallel.pipeline_schedule import Kind, training_order
from realrl.planner.model_memory import Stage


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of one rank, by what they are for."""

    weights_bytes: int = 0
    """Weights, including the copies that generation packs."""
    optimizer_bytes: int = 0
    """Float32 masters, moments and gradients."""
    activations_bytes: int = 0
    """Tensors that are kept for a backward pass, or in use."""
    cache_bytes: int = 0
    """Keys and values."""
    staging_bytes: int = 0
    """Messages in which weights move, and other buffers of communication."""
    context_bytes: int = 0
    """What CUDA itself takes, for this process and for a vLLM process next to it, and NCCL."""

    @property
    def parts(self) -> tuple[int, ...]:
        """The bytes of each field, in their order."""
        return (
            self.weights_bytes,
            self.optimizer_bytes,
            self.activations_bytes,
            self.cache_bytes,
            self.staging_bytes,
            self.context_bytes,
        )

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return sum(self.parts)

    def __add__(self, other: MemoryUse) -> MemoryUse:
        """Return the sum, field by field."""
        sums = map(add, self.parts, other.parts)
        return MemoryUse(*sums)


CONTEXT_BYTES = 600 << 20
"""CUDA's context of a process, with the libraries that it loads and their work space, on Hopper GPUs."""
_GROUP_BYTES = 256 << 20
"""NCCL's buffers for a communicator of a group: a few MiB per channel and peer, with up to 32 channels."""
_PAIR_BYTES = 64 << 20
"""NCCL's buffers for a communicator of two ranks."""
_GLOO_BYTES = 2 << 20
"""Buffers of gloo's all-reduce: two segments of a ring (`kMaxSegmentSize` in gloo/allreduce.cc)."""
_FLOAT32_BYTES = 4


def context(links: Links, device: str) -> MemoryUse:
    """Return what a process takes besides tensors, once all of its communicators have been used."""
    if device == "cpu":
        return MemoryUse()
    groups = links.groups * _GROUP_BYTES
    pairs = links.pairs * _PAIR_BYTES
    return MemoryUse(context_bytes=CONTEXT_BYTES + groups + pairs)


@dataclass(frozen=True, kw_only=True)
class Load:
    """The work of a data-parallel rank in one call."""

    num_micros: int
    """Micro-batches."""
    num_tokens: int
    """Tokens that are computed in the fullest micro-batch."""
    num_logits: int
    """Tokens of that micro-batch that get logits: those of `loss_mask`."""


@dataclass(frozen=True, kw_only=True)
class GenerationLoad:
    """The work of a data-parallel rank in one generate call."""

    num_sequences: int
    longest_prompt: int
    """Tokens of the longest prompt."""
    num_prompt_tokens: int
    """Tokens of all prompts; a prompt that a group shares counts once."""


def resident(stage: Stage, *, trained: bool, states_elsewhere: bool = False) -> MemoryUse:
    """Return what an engine holds between calls.

    With `states_elsewhere` only gradients are on the device, and the optimizer's states are not.
    """
    optimizer = 0
    if trained:
        gradients = _FLOAT32_BYTES * stage.num_elements
        states = 0 if states_elsewhere else states_bytes(stage)
        optimizer = gradients + states
    return MemoryUse(
        weights_bytes=stage.num_elements * stage.itemsize,
        optimizer_bytes=optimizer,
    )


def states_bytes(stage: Stage) -> int:
    """Return the bytes of this rank's shard of the masters and of the two moments.

    Float32 weights are their own masters.
    """
    share = stage.num_elements // stage.layout.dp
    num_states = 2 if stage.itemsize == _FLOAT32_BYTES else 3
    return share * num_states * _FLOAT32_BYTES


def training(stage: Stage, load: Load, *, recompute: bool) -> MemoryUse:
    """Return what a train call takes in addition to what is resident.

    That is the larger of the peak of a micro-batch and that of the optimizer's step.
    """
    passes = max(
        _forward_peak(stage, load, recompute),
        _backward_peak(stage, load, recompute),
    )
    step = step_bytes(stage)
    if step > passes:
        return MemoryUse(staging_bytes=step)
    return MemoryUse(
        activations_bytes=passes,
        staging_bytes=_sum_bytes(stage),
    )


def inference(stage: Stage, load: Load) -> MemoryUse:
    """Return what an inference call takes in addition to the weights.

    That is the tensors of a layer or of the head, and what was sent to the next stage before.
    """
    peak = stage.forward_bytes(load.num_tokens)
    if stage.is_last:
        head = stage.head_forward_bytes(load.num_tokens, load.num_logits, trains=False)
        peak = max(peak, head)
    else:
        num_earlier = load.num_micros - 1
        num_sent = min(num_earlier, max_sending(stage.layout))
        peak += num_sent * stage.hidden_bytes(load.num_tokens)
    return MemoryUse(
        activations_bytes=peak,
        staging_bytes=_sum_bytes(stage),
    )


def generation(
    stage: Stage, load: GenerationLoad, config: GenerationConfig, *, max_prefill_tokens: int
) -> MemoryUse:
    """Return what a generate call takes in addition to the weights.

    That is packed copies of the weights, the cache, and a prefill or the logits of a draw.
    """
    cache = _Cache(stage, load, config)
    peak = max(
        _generation_peaks(stage, load, config, cache, max_prefill_tokens),
        key=lambda moment: moment.total_bytes,
    )
    # Packing costs as much as some tokens' products, so short generations do not pack.
    packs = config.max_new_tokens >= PACKING_PAYS
    more = MemoryUse(
        weights_bytes=stage.packed_bytes if packs else 0,
        staging_bytes=_sum_bytes(stage),
    )
    return peak + more


def _generation_peaks(
    stage: Stage,
    load: GenerationLoad,
    config: GenerationConfig,
    cache: _Cache,
    max_prefill_tokens: int,
) -> list[MemoryUse]:
    """Return activations and cache at the moments that may be the fullest.

    These are the first prefills and the last one of those that start at once, the prefills after them, and a
    draw with all sequences.
    """
    tokens_each = load.num_prompt_tokens / load.num_sequences
    most_tokens = max(max_prefill_tokens, load.longest_prompt)

    def prefill_bytes(num_sequences: int) -> int:
        num_tokens = round(num_sequences * tokens_each)
        return stage.forward_bytes(min(most_tokens, num_tokens))

    num_fitting = int(max_prefill_tokens / tokens_each)
    at_once = min(max(num_fitting, 1), cache.num_started)
    num_last = cache.num_started % at_once
    num_before_last = cache.num_started - num_last
    num_later = load.num_sequences - cache.num_started
    first = MemoryUse(
        activations_bytes=prefill_bytes(at_once),
        cache_bytes=cache.bytes_after(num_before_last),
    )
    last_of_start = MemoryUse(
        activations_bytes=prefill_bytes(num_last),
        cache_bytes=cache.bytes_after(cache.num_started),
    )
    later = MemoryUse(
        activations_bytes=prefill_bytes(num_later),
        cache_bytes=cache.num_bytes,
    )
    draw = MemoryUse(
        activations_bytes=stage.drawing_bytes(cache.num_running, config),
        cache_bytes=cache.num_bytes,
    )
    return [first, last_of_start, later, draw]


class _Cache:
    """The pages of keys and values: for as many sequences as run at once, or as many as are allowed."""

    def __init__(self, stage: Stage, load: GenerationLoad, config: GenerationConfig) -> None:
        page_bytes = KeyValueCache.page_bytes(**stage.cache_shape())
        page_tokens = KeyValueCache.tokens_of_page(stage.device)
        longest = load.longest_prompt + config.max_new_tokens
        pages_each = -(-longest // page_tokens)
        pages_of_prompt = -(-load.longest_prompt // page_tokens)

        self.num_running = min(config.max_sequences, load.num_sequences)
        num_pages = self.num_running * pages_each
        if config.cache_mib:
            allowed_bytes = config.cache_mib << 20
            num_allowed = allowed_bytes // page_bytes
            num_pages = min(num_allowed, num_pages)

        num_starting = num_pages // (pages_of_prompt + 1)
        self.num_started = max(min(self.num_running, num_starting), 1)
        """Sequences that start before one ends: each keeps a page to grow into."""
        is_on_cpu = stage.device == "cpu"
        if is_on_cpu:
            num_pages = min(num_pages, self.num_started * pages_each)
        # Recorded steps write to one further page.
        self.num_bytes = (num_pages + 1) * page_bytes
        self._bytes_each = pages_of_prompt * page_bytes if is_on_cpu else self.num_bytes

    def bytes_after(self, num_prompts: int) -> int:
        """Return the bytes that are taken once `num_prompts` prompts are in the cache.

        On the CPU, memory is taken when it is written to. Where pages of the system are huge, up to one more
        of them is taken in each layer.
        """
        written = num_prompts * self._bytes_each
        return min(written, self.num_bytes)


def step_bytes(stage: Stage) -> int:
    """Return what the optimizer's step takes in addition to its states.

    On CUDA gradients are summed in place, and a copy of the new weights of this rank's shard is sent. On the
    CPU there is this rank's shard of the sum, and gloo sums in a copy of all gradients.
    """
    if stage.layout.dp == 1:
        return 0
    share = stage.num_elements // stage.layout.dp
    if stage.device == "cuda":
        return share * stage.itemsize
    return _FLOAT32_BYTES * (share + stage.num_elements)


def _sum_bytes(stage: Stage) -> int:
    """Return the bytes of the buffers for sums over tensor-parallel ranks."""
    uses_gloo = stage.layout.tp > 1 and stage.device == "cpu"
    return _GLOO_BYTES if uses_gloo else 0


def _in_flight(stage: Stage, load: Load) -> int:
    """Return the largest number of micro-batches of which the stage keeps something at one time."""
    frees = Kind.WEIGHTS if stage.device == "cuda" else Kind.BACKWARD
    num_chunks = 0
    most_chunks = 0
    for step in training_order(stage.layout, stage.place.pp_rank, load.num_micros):
        if step.kind is Kind.FORWARD:
            num_chunks += 1
        elif step.kind is frees:
            num_chunks -= 1
        most_chunks = max(most_chunks, num_chunks)
    chunks_per_stage = stage.layout.vp
    return -(-most_chunks // chunks_per_stage)


def _sent_bytes(stage: Stage, load: Load) -> int:
    """Return the bytes of earlier micro-batches' outputs and gradients that are still being sent.

    Some of them stay until later ones are sent.
    """
    num_directions = 0
    if not stage.is_last:
        num_directions += 1
    if not stage.is_first:
        num_directions += 1
    num_done = load.num_micros - _in_flight(stage, load)
    num_sent = min(num_directions * num_done, max_sending(stage.layout))
    return num_sent * stage.hidden_bytes(load.num_tokens)


def _earlier_bytes(stage: Stage, load: Load, recompute: bool) -> int:
    """Return what earlier micro-batches keep while another one is computed."""
    each = stage.kept_bytes(load.num_tokens, recompute=recompute)
    num_earlier = _in_flight(stage, load) - 1
    kept = num_earlier * each
    sent = _sent_bytes(stage, load)
    return kept + sent


def _forward_peak(stage: Stage, load: Load, recompute: bool) -> int:
    """Return the peak of a micro-batch's forward pass, in a layer or in the head."""
    num_tokens = load.num_tokens
    kept = stage.kept_bytes(num_tokens, recompute=recompute)
    head = 0
    if stage.is_last:
        head = stage.head_forward_bytes(num_tokens, load.num_logits, trains=True)
    layers = 0
    if recompute:
        # The input of the layer that is computed is among what is kept.
        layers = kept + stage.forward_bytes(num_tokens) - stage.hidden_bytes(num_tokens)
    return _earlier_bytes(stage, load, recompute) + max(layers, kept + head)


def _backward_peak(stage: Stage, load: Load, recompute: bool) -> int:
    """Return the peak of a micro-batch's backward pass: in a layer, the embedding or the head."""
    num_tokens = load.num_tokens
    kept = stage.kept_bytes(num_tokens, recompute=recompute)
    in_layer = stage.backward_bytes(num_tokens, recompute=recompute)
    peaks = [
        kept + stage.tied_gradient_bytes + in_layer,
        stage.embedding_gradient_bytes + stage.hidden_bytes(num_tokens),
    ]
    if stage.is_last:
        in_head = stage.head_backward_bytes(num_tokens, load.num_logits)
        after_head = stage.head_gradient_bytes(num_tokens)
        peaks.append(kept + in_head)
        peaks.append(kept + after_head)
    return _earlier_bytes(stage, load, recompute) + max(peaks)
