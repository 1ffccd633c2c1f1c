"""Prefills and decoding steps on a device, with what they read and write there: cache, rows, recordings.

    prefill   begin ---> chunk 0 --> chunk 1 ... --> head, draw, log-probabilities --> [broadcast] --> advance
    decode    follow --> chunk 0 --> chunk 1 ... --> head, draw, log-probabilities --> [broadcast] --> advance
              upload     `----------- one recorded step each chunk ------------'    of the slice

On a single rank, the last chunk's step also advances the rows. In a slice of several ranks, the output rank
first sends the drawn tokens to all others; `Generator` does so with each `Launch`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.models.decode_state import DecodeState, Lanes
from realrl.models.decoder import Attend, Decoder
from realrl.models.graphs import CudaRecorder, RecordedStep, size_of
from realrl.models.prefill import PackedPrefill
from realrl.models.sampling import Sampler
from realrl.models.sequences import Admission, Rollout
from realrl.ops.attention import packed_attention
from realrl.ops.cache import KeyValueCache
from realrl.parallel.pipeline import StageLink

Step = Callable[[int], Tensor]
"""A step of a number of lanes."""

_RECORDING_PAYS = 64
"""The fewest new tokens for which decoding steps are recorded as CUDA graphs."""


@dataclass(frozen=True, kw_only=True)
class DecodingSize:
    """The size of a decoding's memory."""

    num_rows: int
    """Sequences that run at the same time."""
    pages_each: int
    """The most pages of a sequence."""
    num_pages: int
    """Pages of all sequences."""

    def fits(self, other: DecodingSize) -> bool:
        """Whether this size is enough for another one."""
        has_rows = self.num_rows >= other.num_rows
        has_pages = self.num_pages >= other.num_pages
        has_width = self.pages_each >= other.pages_each
        return has_rows and has_pages and has_width


class Launch(NamedTuple):
    """A step that is launched: the output rank of the slice draws a token for each of some rollouts."""

    rollouts: Sequence[Rollout]
    num_lanes: int
    """Lanes that the step has: at least one for each rollout."""
    advance: Step
    """Makes the drawn tokens the newest of their rows, in a slice of several ranks."""


class Decoding:
    """A rank's cache, rows and steps. Recorded steps are valid while the weights stay where they are.

    Nothing that it holds refers back to it, so that its memory is freed as soon as it is dropped.
    """

    def __init__(self, decoder: Decoder, link: StageLink, size: DecodingSize) -> None:
        self.size = size
        self._decoder = decoder
        self._link = link
        self._device = next(iter(decoder.weights.values())).device
        # One more page is for lanes of a recorded step that no sequence has.
        self.cache = KeyValueCache(
            num_pages=size.num_pages + 1,
            **cache_shape(decoder),
        )
        self.state = DecodeState(
            size.num_rows,
            size.pages_each,
            spare_page=size.num_pages,
            device=self._device,
        )
        self._layers = _Layers(decoder, link, self.cache, self.state, size.num_rows)
        self._recorder: CudaRecorder | None = None
        self._made: dict[GenerationConfig, _Steps] = {}
        self._recorded_at = addresses(decoder)

    @property
    def is_recordable(self) -> bool:
        """Whether a graph can capture a step."""
        return self.cache.is_recordable

    @property
    def has_recordings(self) -> bool:
        """Whether steps may have been recorded."""
        return self._recorder is not None

    def check_recordings(self) -> None:
        """Drop recordings if the weights have moved since."""
        found = addresses(self._decoder)
        if found != self._recorded_at:
            self._made = {}
            self._recorder = None
            self._recorded_at = found

    def prefill(self, config: GenerationConfig, admitted: Sequence[Admission]) -> Launch:
        """Compute each prompt once, then what each rollout has after it, and draw each rollout's next token.

        Shapes: T tokens to compute.
        """
        packed = PackedPrefill(admitted, self.cache.page_tokens)
        host = (
            torch.tensor(packed.ids),
            torch.tensor(packed.rows),
            torch.tensor(packed.slots),
            torch.tensor(packed.last),
        )
        ids, rows, slots, last = self.state.begin(packed.rollouts, host)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            """Write keys and values into the cache, and attend: `[T, N, D]` to `[T, Q, D]`."""
            self.cache.write(self._layers.cache_layers[layer], qkv[rows], slots)
            rule = self._decoder.attention_rule(layer)
            return packed_attention(qkv, self._decoder.num_kv_heads, packed.segments, **rule)

        positions = packed.segments.on(self._device).positions
        for chunk in range(len(self._decoder.chunks)):
            received = self._link.receive("hidden", len(ids), chunk)
            hidden = self._decoder.forward(ids, received, positions, attend, chunk=chunk)
            self._link.send("hidden", hidden, chunk)

        self._link.finish()
        # Of the hidden states, only the last ones are kept while tokens are drawn.
        hidden = hidden[last]
        del received
        num_lanes = len(hidden)
        if self._decoder.is_last:
            sampler = self._steps(config).sampler
            sampler(hidden, self.state.read(num_lanes))
        return Launch(packed.rollouts, num_lanes, self.state.advance)

    def decode(self, config: GenerationConfig, rollouts: Sequence[Rollout]) -> Launch:
        """Draw a token for each rollout, whose newest token is not in the cache yet."""
        steps = self._steps(config)
        size = steps.size_for(len(rollouts))
        self.state.follow(rollouts, size)
        for chunk, step in enumerate(steps.chunks):
            received = self._link.receive("hidden", size, chunk)
            self._layers.take_hidden(received, chunk)
            self._link.send("hidden", step(size), chunk)

        self._link.finish()
        return Launch(rollouts, size, steps.advance)

    def _steps(self, config: GenerationConfig) -> _Steps:
        """Return the steps for a config: recorded ones, if that is possible and they are replayed often."""
        if config in self._made:
            return self._made[config]

        sampler = Sampler(self._decoder, config, self.state, self._device)
        chunks: list[Step] = []
        for chunk in range(len(self._decoder.chunks)):
            chunks.append(partial(self._layers.step, sampler, chunk))
        steps = _Steps(sampler, chunks, self.state.advance)
        pays = config.max_new_tokens >= _RECORDING_PAYS
        if pays and self.is_recordable:
            if self._recorder is None:
                self._recorder = CudaRecorder()
            steps = _RecordedSteps(steps, self._recorder, self.state)

        self._made[config] = steps
        return steps


class _Layers:
    """A rank's layers on the newest token of each sequence, and the draw after the last layer."""

    def __init__(
        self, decoder: Decoder, link: StageLink, cache: KeyValueCache, state: DecodeState, num_rows: int
    ) -> None:
        self._decoder = decoder
        self._link = link
        self._cache = cache
        self._state = state
        self.cache_layers = {layer: index for index, layer in enumerate(decoder.layers)}
        """The place of each layer in the cache."""
        self._hidden = [self._hidden_of(chunk, num_rows) for chunk in range(len(decoder.chunks))]
        """The input of each chunk, `[lanes, H]`; None for the first."""

    def take_hidden(self, received: Tensor | None, chunk: int) -> None:
        """Copy the output of the chunk before, `[B, H]`, to where a recorded step reads it."""
        buffer = self._hidden[chunk]
        if received is not None and buffer is not None:
            buffer[: len(received)].copy_(received)

    def step(self, sampler: Sampler, chunk: int, size: int) -> Tensor:
        """Run one chunk of layers, and after the last one the head and the draw.

        Returns the hidden states, `[size, H]`.
        """
        lanes = self._state.read(size)
        received = self._hidden[chunk]
        if received is not None:
            received = received[:size]
        hidden = self._decoder.forward(
            lanes.ids,
            received,
            lanes.positions,
            self._attend(lanes),
            chunk=chunk,
        )
        if self._link.is_last(chunk):
            sampler(hidden, lanes)
        return hidden

    def _attend(self, lanes: Lanes) -> Attend:
        """Return the attention of each lane's newest token to its sequence, in the cache."""
        page_tokens = self._cache.page_tokens
        page_index = lanes.positions // page_tokens
        pages = lanes.table.gather(1, page_index[:, None])[:, 0]
        offsets = lanes.positions % page_tokens
        slots = pages.long() * page_tokens + offsets
        lengths = lanes.positions + 1

        def attend(layer: int, qkv: Tensor) -> Tensor:
            """Write keys and values into the cache, and attend: `[B, N, D]` to `[B, Q, D]`."""
            row = self.cache_layers[layer]
            self._cache.write(row, qkv, slots)
            queries = qkv[:, : self._decoder.num_heads]
            rule = self._decoder.attention_rule(layer)
            return self._cache.attend(row, queries, lanes.table, lengths, **rule)

        return attend

    def _hidden_of(self, chunk: int, num_rows: int) -> Tensor | None:
        """Return memory for the input of a chunk, `[lanes, H]`; None for the first chunk."""
        if self._link.is_first(chunk):
            return None
        weight = next(iter(self._decoder.weights.values()))
        num_lanes = size_of(num_rows)
        return weight.new_zeros(num_lanes, self._decoder.config.hidden_size)


class _Steps:
    """A step for each chunk of layers, of any number of lanes."""

    def __init__(self, sampler: Sampler, chunks: Sequence[Step], advance: Step) -> None:
        self.sampler = sampler
        self.chunks = chunks
        self.advance = advance

    def size_for(self, num_rows: int) -> int:
        """Return the number of lanes of a step for this many sequences."""
        return num_rows


class _RecordedSteps(_Steps):
    """Steps that are recorded for some numbers of lanes."""

    def __init__(self, launched: _Steps, recorder: CudaRecorder, state: DecodeState) -> None:
        chunks = [RecordedStep(step, recorder) for step in launched.chunks]
        advance = RecordedStep(launched.advance, recorder)
        super().__init__(launched.sampler, chunks, advance)
        self._recorded = (*chunks, advance)
        self._state = state
        self._sizes: set[int] = set()

    def size_for(self, num_rows: int) -> int:
        """Return the number of lanes of a step for this many sequences, and record it if it is new."""
        size = size_of(num_rows)
        if size not in self._sizes:
            # To record a step also runs it, which must not advance any sequence.
            self._state.park_lanes(size)
            for step in self._recorded:
                step.prepare(size)
            self._sizes.add(size)
        return size


class KeptDecoding:
    """The decoding that an engine keeps from one generation to the next, for its recordings."""

    def __init__(self) -> None:
        self._decoding: Decoding | None = None
        self._size: DecodingSize | None = None

    def take(self, needed: DecodingSize) -> Decoding | None:
        """Return the kept decoding if it is large enough; it is not kept any longer in any case."""
        found = self._decoding
        self._decoding = None
        if found is None or not found.size.fits(needed):
            return None
        return found

    def keep(self, decoding: Decoding) -> None:
        """Keep a decoding that has recordings; another one would only take memory."""
        if decoding.has_recordings:
            self._decoding = decoding
            self._size = decoding.size

    def size_for(self, needed: DecodingSize, most_pages: int) -> DecodingSize:
        """Return a size that also fits what was kept before.

        One decoding then serves training and evaluation in turn.
        """
        before = self._size
        if before is None:
            return needed
        num_pages = max(needed.num_pages, before.num_pages)
        return DecodingSize(
            num_rows=max(needed.num_rows, before.num_rows),
            pages_each=max(needed.pages_each, before.pages_each),
            num_pages=min(num_pages, most_pages),
        )

    def drop(self) -> None:
        """Free the kept decoding."""
        self._decoding = None


def addresses(decoder: Decoder) -> list[int]:
    """Return the addresses of the weights."""
    return [weight.data_ptr() for weight in decoder.weights.values()]


class CacheShape(TypedDict):
    """The arguments of a key/value cache that depend on the decoder."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


def cache_shape(decoder: Decoder) -> CacheShape:
    """Return the arguments of a key/value cache for a decoder."""
    weight = next(iter(decoder.weights.values()))
    return {
        "num_layers": len(decoder.layers),
        "num_kv_heads": decoder.num_kv_heads,
        "head_dim": decoder.config.head_dim,
        "dtype": weight.dtype,
        "device": weight.device,
    }
