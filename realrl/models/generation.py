"""Generation with a paged key/value cache and continuous batching, over one data-parallel share's (pp, tp).

      admit --> prefill --+
                          +--> draw --> unread --> read: tokens, ends, breaks
    running --> decode  --+
       ^                          |
       +--------------------------+

On CUDA a step is launched before the one before it is read, so that the device does not wait for the host.
What it draws for a response that has ended by then is dropped.
Source: continuous batching, Yu et al. 2022 (Orca, OSDI); pages, Kwon et al. 2023, arXiv:2309.06180.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.batch import cu_seqlens_of
from realrl.api.config import GenerationConfig
from realrl.api.engine import NO_BREAKS, Breaks, Ends
from realrl.base.progress import Progress, no_progress
from realrl.models.decode_state import HostBlock
from realrl.models.decoder import Decoder
from realrl.models.decoding import Decoding, DecodingSize, KeptDecoding, cache_shape
from realrl.models.sequences import Admission, Rollout, Sequences
from realrl.ops.attention import packed_attention
from realrl.ops.cache import KeyValueCache
from realrl.ops.segments import Segments
from realrl.parallel.pipeline import StageLink

_NO_LIMIT = 1 << 62
"""Bytes of a cache whose size is not set."""
PACKING_PAYS = 12
"""New tokens from which on it pays to lay out the weights anew for the products of decoding."""
UNREAD_STEPS = {"cpu": 0, "cuda": 1}
"""How many steps are launched ahead of what the host has read, by the type of the device."""


class _Unread(NamedTuple):
    """A step that was launched: a token for each of some rollouts."""

    rollouts: Sequence[Rollout]
    block: HostBlock


class Generator:
    """Continues rollouts on one rank of a data-parallel slice; all of its ranks do the same."""

    def __init__(
        self,
        decoder: Decoder,
        link: StageLink,
        config: GenerationConfig,
        *,
        max_prefill_tokens: int,
        ends: Ends,
        version: Callable[[], int],
        kept: KeptDecoding,
        breaks: Breaks = NO_BREAKS,
        progress: Progress = no_progress,
        why_not_finite: Callable[[], str] = lambda: "",
    ) -> None:
        """`kept`: where what was recorded is kept from one run to the next."""
        self._why_not_finite = why_not_finite
        self.decoder, self.link, self.config = decoder, link, config
        self._max_prefill_tokens, self._ends = max_prefill_tokens, ends
        self._current_version, self._breaks, self._progress = version, breaks, progress
        self._kept = kept
        self._device = next(iter(decoder.weights.values())).device
        self._cache_layers = {layer: i for i, layer in enumerate(decoder.layers)}
        self._unread: deque[_Unread] = deque()
        self._is_break_due = False

    @torch.no_grad()
    def run(self, rollouts: Sequence[Rollout]) -> None:
        """Continue each rollout until it ends or has `max_new_tokens`.

        A rollout's tokens depend on its seed and the weights, not on the rollouts around it. If a break
        between two tokens brings new weights, what each rollout has so far is computed anew with them.

        Raises:
            FloatingPointError: logits are no finite numbers.

        Collective: over the data-parallel slice, with equal rollouts; every rank of it ends with the same.
        """
        self._open(rollouts)
        num_rows = min(self.config.max_sequences, len(rollouts))
        pays = num_rows and self.config.max_new_tokens >= PACKING_PAYS
        while self._sequences.busy:
            self._version = self._current_version()
            self._decoding.check_recordings()
            with self.decoder.packed(num_rows) if pays else nullcontext():
                self._run()
            self._sequences.stop()
        self._kept.keep(self._decoding)

    def _run(self) -> None:
        """Until all have ended, or there are new weights."""
        while self._sequences.busy and self._version == self._current_version():
            self._progress(self._sequences.num_done, self._sequences.num_rollouts)
            self._prefill_some()
            if not self._is_break_due:
                self._decode_all()
            if self._is_break_due:
                self._take_break()
        self._read_all()

    def _take_break(self) -> None:
        # The step under way says that the same break is due.
        self._read_all()
        self._is_break_due = False
        with self.decoder.unpacked():
            self._breaks.take()
        self._decoding.check_recordings()

    def _prefill_some(self) -> None:
        """Begin with rollouts that there is room for."""
        admitted = self._sequences.admit(self._max_prefill_tokens)
        if admitted:
            hidden = self._prefill(admitted)
            block = self._decoding.draw(self.config, hidden, self._breaks.due)
            self._launched(_members(admitted), block)

    def _decode_all(self) -> None:
        """Draw a token for each that runs; where there is none to draw, read what is drawn."""
        if self._sequences.lacks_pages:
            self._read_all()
        self._sequences.grow()
        running = self._sequences.decodable
        if not running:
            self._read_all()
            return
        self._launched(running, self._decoding.decode(self.config, running, self._breaks.due))

    def _launched(self, rollouts: Sequence[Rollout], block: HostBlock) -> None:
        """Note a step, and read those before it that there are too many of."""
        for rollout in rollouts:
            rollout.num_unread += 1
        self._unread.append(_Unread(rollouts, block))
        while len(self._unread) > UNREAD_STEPS[self._device.type]:
            self._read(self._unread.popleft())

    def _read_all(self) -> None:
        while self._unread:
            self._read(self._unread.popleft())

    def _read(self, step: _Unread) -> None:
        """Write down a token for each rollout that had not ended when the step was launched."""
        drawn, is_break_due = step.block.read()
        self._is_break_due |= is_break_due
        for rollout, (token, logprob, raw_logprob) in zip(step.rollouts, drawn):
            rollout.num_unread -= 1
            if self._sequences.is_done(rollout):
                continue
            self._check_finite(rollout, raw_logprob)
            rollout.tokens.append(token)
            rollout.logprobs.append(logprob)
            rollout.raw_logprobs.append(raw_logprob)
            rollout.versions.append(self._version)
            rollout.ended = len(rollout.tokens) > self.config.min_new_tokens and self._ends(rollout.tokens)
            if self._sequences.is_done(rollout):
                self._sequences.finish(rollout)

    def _check_finite(self, rollout: Rollout, raw_logprob: float) -> None:
        if not math.isfinite(raw_logprob):
            raise FloatingPointError(
                f"logits are not finite at token {len(rollout.tokens) + 1} of a response:"
                f" {self._why_not_finite()}"
            )

    def _open(self, rollouts: Sequence[Rollout]) -> None:
        """Make the queue, and a cache of the size that is asked for, or what the rollouts can fill."""
        config, page = self.config, KeyValueCache.tokens_of_page(self._device)
        max_running = min(config.max_sequences, max(len(rollouts), 1))
        longest = max((len(r.prompt) for r in rollouts), default=0) + config.max_new_tokens
        pages_each = -(-longest // page)
        most_pages = self._pages_in_memory()
        num_pages = min(most_pages, max_running * pages_each)
        self._check_room(num_pages, pages_each)
        size = DecodingSize(num_rows=max_running, pages_each=pages_each, num_pages=num_pages)
        self._decoding = self._kept.take(size) or self._new_decoding(size, most_pages)
        self._sequences = Sequences(
            rollouts,
            num_pages=num_pages,
            page_tokens=page,
            max_running=max_running,
            max_new=config.max_new_tokens,
        )

    def _new_decoding(self, needed: DecodingSize, most_pages: int) -> Decoding:
        return Decoding(self.decoder, self.link, self._kept.size_for(needed, most_pages))

    def _pages_in_memory(self) -> int:
        allowed_bytes = self.config.cache_mib << 20 or _NO_LIMIT
        return allowed_bytes // KeyValueCache.page_bytes(**cache_shape(self.decoder))

    def _check_room(self, num_pages: int, pages_each: int) -> None:
        if num_pages < pages_each:
            needed = pages_each * KeyValueCache.page_bytes(**cache_shape(self.decoder)) / 2**20
            raise ValueError(
                f"generation.cache_mib: the longest sample needs {needed:.0f} MiB for keys and values, got"
                f" {self.config.cache_mib}; raise it, or lower generation.max_new_tokens"
            )

    def _prefill(self, admitted: Sequence[Admission]) -> Tensor:
        """Each prompt once, then what each rollout has beyond it; the last hidden state of each rollout."""
        cache = self._decoding.cache
        packed = _Prefill(admitted, cache.page_tokens)
        host = [torch.tensor(x) for x in (packed.ids, packed.rows, packed.slots, packed.last)]
        ids, rows, slots, last = self._decoding.state.begin(_members(admitted), host)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            cache.write(self._cache_layers[layer], qkv[rows], slots)
            return packed_attention(
                qkv, self.decoder.num_kv_heads, packed.segments, **self.decoder.attention_rule(layer)
            )

        positions = packed.segments.on(self._device).positions
        for chunk in range(len(self.decoder.chunks)):
            received = self.link.receive_hidden(len(ids), chunk)
            hidden = self.decoder.forward(ids, received, positions, attend, chunk=chunk)
            self.link.send_hidden(hidden, chunk)
        self.link.finish()
        return hidden[last]


class _Prefill:
    """What admitted rollouts have so far, packed: which tokens, and which cache slots they go to."""

    def __init__(self, admitted: Sequence[Admission], page: int) -> None:
        self.ids: list[int] = []
        self.rows: list[int] = []
        """Packed tokens to be written, one more than once where rollouts have pages of their own for it."""
        self.slots: list[int] = []
        self.last: list[int] = []
        """The packed token that each rollout goes on from."""
        lengths, prefix = [], []
        for admission in admitted:
            prompt = self._packed(admission.prompt)
            segment = len(lengths)
            lengths.append(len(prompt))
            prefix.append(-1)
            shared = len(prompt) // page * page
            self._place(prompt[:shared], admission.rollouts[0].pages, 0, page)
            for rollout in admission.rollouts:
                own = self._packed(rollout.tokens)
                if own:
                    lengths.append(len(own))
                    prefix.append(segment)
                self._place([*prompt[shared:], *own], rollout.pages, shared, page)
                self.last.append(own[-1] if own else prompt[-1])
        self.segments = Segments(cu_seqlens_of(lengths), torch.tensor(prefix, dtype=torch.int32))

    def _packed(self, tokens: Sequence[int]) -> range:
        self.ids += tokens
        return range(len(self.ids) - len(tokens), len(self.ids))

    def _place(self, rows: Sequence[int], pages: Sequence[int], start: int, page: int) -> None:
        self.rows += rows
        places = range(start, start + len(rows))
        self.slots += [pages[place // page] * page + place % page for place in places]


def _members(admitted: Sequence[Admission]) -> list[Rollout]:
    return [rollout for admission in admitted for rollout in admission.rollouts]
