"""Decoding steps on a device, with all that they read and write there: cache, rows of sequences, recordings.

    follow --> chunk 0 --> chunk 1 ... --> head, draw, log-probabilities --> [broadcast] --> advance
    upload     `------------------- one recorded step each chunk -----------'   of the slice

Alone, the last chunk's step advances the rows too; in a slice of several ranks, the drawn tokens go from the
output rank to all others first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch.distributed as dist
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.models.decode_state import DecodeState, HostBlock, Lanes
from realrl.models.decoder import Decoder
from realrl.models.graphs import CudaRecorder, RecordedStep, size_of
from realrl.models.sampling import Sampler
from realrl.models.sequences import Rollout
from realrl.ops.cache import KeyValueCache
from realrl.parallel.pipeline import StageLink

_RECORDING_PAYS = 64
"""New tokens from which on it pays to record decoding steps as CUDA graphs."""


@dataclass(frozen=True, kw_only=True)
class DecodingSize:
    """What a generation needs memory for."""

    num_rows: int
    """Sequences that run at once."""
    pages_each: int
    num_pages: int

    def fits(self, other: DecodingSize) -> bool:
        """Whether this is enough for another one."""
        rows_and_pages = self.num_rows >= other.num_rows and self.num_pages >= other.num_pages
        return rows_and_pages and self.pages_each >= other.pages_each


class Decoding:
    """A rank's cache, rows and steps. What was recorded is valid while the weights are where they are.

    Nothing that it holds refers to it, so that the memory is free as soon as it is dropped.
    """

    def __init__(self, decoder: Decoder, link: StageLink, size: DecodingSize) -> None:
        self.size = size
        self._decoder, self._link = decoder, link
        self._device = next(iter(decoder.weights.values())).device
        # One page more is for rows of a recorded step that no sequence has.
        self.cache = KeyValueCache(num_pages=size.num_pages + 1, **cache_shape(decoder))
        self.state = DecodeState(size.num_rows, size.pages_each, size.num_pages, self._device)
        self._layers = _Layers(decoder, link, self.cache, self.state, size.num_rows)
        self._recorder: CudaRecorder | None = None
        self._made: dict[GenerationConfig, _Steps] = {}
        self._recorded_at = addresses(decoder)

    @property
    def is_recordable(self) -> bool:
        """Whether a graph can hold a step."""
        return self.cache.is_recordable

    @property
    def has_recordings(self) -> bool:
        return self._recorder is not None

    def check_recordings(self) -> None:
        """Forget what was recorded with weights that have moved since."""
        found = addresses(self._decoder)
        if found != self._recorded_at:
            self._made, self._recorder, self._recorded_at = {}, None, found

    def decode(
        self, config: GenerationConfig, rollouts: Sequence[Rollout], is_break_due: Callable[[], bool]
    ) -> HostBlock:
        """Draw a token for each rollout, whose newest token is not in the cache yet.

        `is_break_due` is asked on the output rank of the slice alone, once the step is launched.
        """
        steps = self._steps(config)
        size = steps.size_for(len(rollouts))
        self.state.follow(rollouts, size)
        for chunk, step in enumerate(steps.chunks):
            self._layers.take_hidden(self._link.receive_hidden(size, chunk), chunk)
            self._link.send_hidden(step(size), chunk)
        self._link.finish()
        return self._finish(size, steps.advance, is_break_due)

    def draw(self, config: GenerationConfig, hidden: Tensor, is_break_due: Callable[[], bool]) -> HostBlock:
        """Draw a token for each lane from the hidden states `[B, H]` of a prefill."""
        size = len(hidden)
        if self._decoder.is_last:
            self._layers.draw(self._steps(config).sampler, hidden, self.state.read(size))
        return self._finish(size, self.state.advance, is_break_due)

    def _finish(
        self, size: int, advance: Callable[[int], Tensor], is_break_due: Callable[[], bool]
    ) -> HostBlock:
        """Let every rank of the slice take what its output rank drew, and its word on breaks."""
        groups = self._decoder.groups
        source = groups.placement.output_ranks(groups.place.dp_rank)[0]
        if groups.rank == source:
            self.state.mark_break(is_break_due())
        block = self.state.drawn(size)
        if groups.dp_slice is not None:
            dist.broadcast(block, src=source, group=groups.dp_slice)
            advance(size)
        return HostBlock(block)

    def _steps(self, config: GenerationConfig) -> _Steps:
        if config not in self._made:
            self._made[config] = self._make_steps(config)
        return self._made[config]

    def _make_steps(self, config: GenerationConfig) -> _Steps:
        sampler = Sampler(self._decoder, config, self._device)
        chunks = [partial(self._layers.step, sampler, chunk) for chunk in range(len(self._decoder.chunks))]
        launched = _Steps(sampler, chunks, self.state.advance)
        if config.max_new_tokens < _RECORDING_PAYS or not self.is_recordable:
            return launched
        self._recorder = self._recorder or CudaRecorder()
        return _RecordedSteps(launched, self._recorder, self.state)


class _Layers:
    """A rank's layers on the newest token of each sequence, and the draw behind the last one."""

    def __init__(
        self, decoder: Decoder, link: StageLink, cache: KeyValueCache, state: DecodeState, num_rows: int
    ) -> None:
        self._decoder, self._link, self._cache, self._state = decoder, link, cache, state
        self._cache_layers = {layer: i for i, layer in enumerate(decoder.layers)}
        self._hidden = [self._hidden_of(chunk, num_rows) for chunk in range(len(decoder.chunks))]

    def take_hidden(self, received: Tensor | None, chunk: int) -> None:
        """Put what the chunk before made where a step finds it, recorded or not."""
        if received is not None:
            self._hidden[chunk][: len(received)].copy_(received)

    def step(self, sampler: Sampler, chunk: int, size: int) -> Tensor:
        """One chunk of layers, and the head and the draw behind the last one."""
        lanes = self._state.read(size)
        received = self._hidden[chunk]
        hidden = self._decoder.forward(
            lanes.ids,
            None if received is None else received[:size],
            lanes.positions,
            self._attend(lanes),
            chunk=chunk,
        )
        if self._link.is_last(chunk):
            self.draw(sampler, hidden, lanes)
        return hidden

    def draw(self, sampler: Sampler, hidden: Tensor, lanes: Lanes) -> None:
        """Draw a token for each lane; where there is no other rank to be told, go on to it."""
        self._state.write(sampler(hidden, lanes.seeds, lanes.counts))
        if self._decoder.groups.dp_slice is None:
            self._state.advance(len(hidden))

    def _attend(self, lanes: Lanes) -> Callable[[int, Tensor], Tensor]:
        page = self._cache.page_tokens
        pages = lanes.table.gather(1, (lanes.positions // page)[:, None])[:, 0]
        slots = pages.long() * page + lanes.positions % page
        lengths = lanes.positions + 1

        def attend(layer: int, qkv: Tensor) -> Tensor:
            row = self._cache_layers[layer]
            self._cache.write(row, qkv, slots)
            rule = self._decoder.attention_rule(layer)
            return self._cache.attend(row, qkv[:, : self._decoder.num_heads], lanes.table, lengths, **rule)

        return attend

    def _hidden_of(self, chunk: int, num_rows: int) -> Tensor | None:
        """Memory for what the chunk before made; none where there is none."""
        if self._link.is_first(chunk):
            return None
        weight = next(iter(self._decoder.weights.values()))
        return weight.new_zeros(size_of(num_rows), self._decoder.config.hidden_size)


class _Steps:
    """A step for each chunk of layers, of any number of rows."""

    def __init__(
        self, sampler: Sampler, chunks: Sequence[Callable[[int], Tensor]], advance: Callable[[int], Tensor]
    ) -> None:
        self.sampler, self.chunks, self.advance = sampler, chunks, advance

    def size_for(self, num_rows: int) -> int:
        return num_rows


class _RecordedSteps(_Steps):
    """The same, recorded for some numbers of rows."""

    def __init__(self, launched: _Steps, recorder: CudaRecorder, state: DecodeState) -> None:
        super().__init__(
            launched.sampler,
            [RecordedStep(step, recorder) for step in launched.chunks],
            RecordedStep(launched.advance, recorder),
        )
        self._state = state
        self._sizes: set[int] = set()

    def size_for(self, num_rows: int) -> int:
        size = size_of(num_rows)
        if size not in self._sizes:
            # A step that is recorded is run too, and must not advance any sequence.
            self._state.park_lanes(size)
            for step in (*self.chunks, self.advance):
                step.prepare(size)
            self._sizes.add(size)
        return size


class KeptDecoding:
    """Where an engine keeps a decoding from one generation to the next, for its recordings."""

    def __init__(self) -> None:
        self._decoding: Decoding | None = None
        self._size: DecodingSize | None = None

    def take(self, needed: DecodingSize) -> Decoding | None:
        """The one that is kept, if it is large enough; in any case it is kept no more."""
        found, self._decoding = self._decoding, None
        return found if found is not None and found.size.fits(needed) else None

    def keep(self, decoding: Decoding) -> None:
        """Keep it if steps were recorded: else it would take memory for nothing."""
        if decoding.has_recordings:
            self._decoding, self._size = decoding, decoding.size

    def size_for(self, needed: DecodingSize, most_pages: int) -> DecodingSize:
        """A size for what was kept before, too, so that one serves training and evaluation in turn."""
        if self._size is None:
            return needed
        return DecodingSize(
            num_rows=max(needed.num_rows, self._size.num_rows),
            pages_each=max(needed.pages_each, self._size.pages_each),
            num_pages=min(max(needed.num_pages, self._size.num_pages), most_pages),
        )

    def drop(self) -> None:
        self._decoding = None


def addresses(decoder: Decoder) -> list[int]:
    """Where the weights are."""
    return [weight.data_ptr() for weight in decoder.weights.values()]


def cache_shape(decoder: Decoder) -> dict:
    """What a key/value cache has to know of a decoder."""
    weight = next(iter(decoder.weights.values()))
    return {
        "num_layers": len(decoder.layers),
        "num_kv_heads": decoder.num_kv_heads,
        "head_dim": decoder.config.head_dim,
        "dtype": weight.dtype,
        "device": weight.device,
    }
