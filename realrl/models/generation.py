"""Generation with a paged key/value cache and continuous batching, over one data-parallel share's (pp, tp).

      admit --> prefill --+
                          +--> draw --> unread --> read: tokens, ends, preemption
    running --> decode  --+
       ^                          |
       +--------------------------+

On CUDA, a step is launched before the previous one is read, so that the device does not wait for the host.
Tokens that it draws for a response that has ended by then are dropped.
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
from realrl.api.engine import NO_PREEMPTION, Ends, Preemption
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
"""The fewest new tokens for which weights are packed for the products of decoding."""
UNREAD_STEPS = {"cpu": 0, "cuda": 1}
"""The number of steps that are launched ahead of what the host has read, by device type."""


class _Unread(NamedTuple):
    """A launched step, which draws a token for each of some rollouts."""

    rollouts: Sequence[Rollout]
    block: HostBlock


class Generator:
    """Continues rollouts on one rank of a data-parallel slice; all ranks of the slice do the same."""

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
        preemption: Preemption = NO_PREEMPTION,
        progress: Progress = no_progress,
        why_not_finite: Callable[[], str] = lambda: "",
    ) -> None:
        """`kept` keeps recorded steps from one run to the next.

        `version` returns the version of the weights. `why_not_finite` explains logits that are not finite.
        """
        self.decoder = decoder
        self.link = link
        self.config = config
        self._max_prefill_tokens = max_prefill_tokens
        self._ends = ends
        self._current_version = version
        self._kept = kept
        self._preemption = preemption
        self._progress = progress
        self._why_not_finite = why_not_finite
        self._device = next(iter(decoder.weights.values())).device
        self._cache_layers = {layer: index for index, layer in enumerate(decoder.layers)}
        self._unread: deque[_Unread] = deque()
        self._is_break_due = False

    @torch.no_grad()
    def run(self, rollouts: Sequence[Rollout]) -> None:
        """Continue each rollout until it ends or has `max_new_tokens`.

        A rollout's tokens depend on its seed and the weights, not on the rollouts around it. If a break
        between two tokens brings new weights, the cache of each rollout is recomputed with them.

        Collective: over the data-parallel slice, with equal rollouts; every rank gets the same tokens.
        Raises:
            FloatingPointError: logits are not finite.
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
        """Continue until all rollouts have ended, or there are new weights."""
        while self._sequences.busy and self._version == self._current_version():
            self._progress(self._sequences.num_done, self._sequences.num_rollouts)
            self._prefill_some()
            if not self._is_break_due:
                self._decode_all()
            if self._is_break_due:
                self._take_break()

        self._read_all()

    def _take_break(self) -> None:
        # The step that is launched already reports the same break.
        self._read_all()
        self._is_break_due = False
        with self.decoder.unpacked():
            self._preemption.run()
        self._decoding.check_recordings()

    def _prefill_some(self) -> None:
        """Begin or resume rollouts for which there is room."""
        admitted = self._sequences.admit(self._max_prefill_tokens)
        if admitted:
            hidden = self._prefill(admitted)
            block = self._decoding.draw(self.config, hidden, self._preemption.pending)
            self._record_launch(_members(admitted), block)

    def _decode_all(self) -> None:
        """Draw a token for each running rollout; if no token can be drawn, read the drawn ones."""
        if self._sequences.lacks_pages:
            self._read_all()
        self._sequences.grow()
        running = self._sequences.decodable
        if not running:
            self._read_all()
            return

        block = self._decoding.decode(self.config, running, self._preemption.pending)
        self._record_launch(running, block)

    def _record_launch(self, rollouts: Sequence[Rollout], block: HostBlock) -> None:
        """Record a launched step, and read the earliest ones if there are too many."""
        for rollout in rollouts:
            rollout.num_unread += 1
        self._unread.append(_Unread(rollouts, block))
        most_unread = UNREAD_STEPS[self._device.type]
        while len(self._unread) > most_unread:
            self._read(self._unread.popleft())

    def _read_all(self) -> None:
        while self._unread:
            self._read(self._unread.popleft())

    def _read(self, step: _Unread) -> None:
        """Append a token to each rollout of a step that has not ended since."""
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

            may_end = len(rollout.tokens) > self.config.min_new_tokens
            rollout.ended = may_end and self._ends(rollout.tokens)
            if self._sequences.is_done(rollout):
                self._sequences.finish(rollout)

    def _check_finite(self, rollout: Rollout, raw_logprob: float) -> None:
        if not math.isfinite(raw_logprob):
            raise FloatingPointError(
                f"logits are not finite at token {len(rollout.tokens) + 1} of a response:"
                f" {self._why_not_finite()}"
            )

    def _open(self, rollouts: Sequence[Rollout]) -> None:
        """Create the queue, and a cache of the configured size, or smaller if the rollouts cannot fill it."""
        page_tokens = KeyValueCache.tokens_of_page(self._device)
        most_pages = self._pages_in_memory()
        size = self._needed_size(rollouts, page_tokens, most_pages)
        self._check_room(size)
        decoding = self._kept.take(size)
        if decoding is None:
            new_size = self._kept.size_for(size, most_pages)
            decoding = Decoding(self.decoder, self.link, new_size)

        self._decoding = decoding
        self._sequences = Sequences(
            rollouts,
            num_pages=size.num_pages,
            page_tokens=page_tokens,
            max_running=size.num_rows,
            max_new=self.config.max_new_tokens,
        )

    def _needed_size(self, rollouts: Sequence[Rollout], page_tokens: int, most_pages: int) -> DecodingSize:
        """Return the size for some rollouts, with at most `most_pages` pages."""
        max_running = min(self.config.max_sequences, max(len(rollouts), 1))
        longest_prompt = max((len(rollout.prompt) for rollout in rollouts), default=0)
        longest = longest_prompt + self.config.max_new_tokens
        pages_each = -(-longest // page_tokens)
        return DecodingSize(
            num_rows=max_running,
            pages_each=pages_each,
            num_pages=min(most_pages, max_running * pages_each),
        )

    def _page_bytes(self) -> int:
        return KeyValueCache.page_bytes(**cache_shape(self.decoder))

    def _pages_in_memory(self) -> int:
        """Return the number of pages that the configured size allows."""
        allowed_bytes = self.config.cache_mib << 20
        if not allowed_bytes:
            allowed_bytes = _NO_LIMIT
        return allowed_bytes // self._page_bytes()

    def _check_room(self, size: DecodingSize) -> None:
        if size.num_pages < size.pages_each:
            needed_mib = size.pages_each * self._page_bytes() / 2**20
            raise ValueError(
                f"generation.cache_mib: the longest sample needs {needed_mib:.0f} MiB for keys and values,"
                f" got {self.config.cache_mib}; raise it, or lower generation.max_new_tokens"
            )

    def _prefill(self, admitted: Sequence[Admission]) -> Tensor:
        """Compute each prompt once, then what each rollout has after it.

        Returns the last hidden state of each rollout: `[rollouts, H]`.
        """
        cache = self._decoding.cache
        packed = _Prefill(admitted, cache.page_tokens)
        host = (
            torch.tensor(packed.ids),
            torch.tensor(packed.rows),
            torch.tensor(packed.slots),
            torch.tensor(packed.last),
        )
        ids, rows, slots, last = self._decoding.state.begin(_members(admitted), host)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            """Write keys and values into the cache, and attend: `[T, N, D]` to `[T, Q, D]`."""
            cache.write(self._cache_layers[layer], qkv[rows], slots)
            rule = self.decoder.attention_rule(layer)
            return packed_attention(qkv, self.decoder.num_kv_heads, packed.segments, **rule)

        positions = packed.segments.on(self._device).positions
        for chunk in range(len(self.decoder.chunks)):
            received = self.link.receive_hidden(len(ids), chunk)
            hidden = self.decoder.forward(ids, received, positions, attend, chunk=chunk)
            self.link.send_hidden(hidden, chunk)

        self.link.finish()
        return hidden[last]


class _Prefill:
    """The tokens of admitted rollouts, packed, and the cache slots in which they are written."""

    def __init__(self, admitted: Sequence[Admission], page_tokens: int) -> None:
        self.ids: list[int] = []
        self.rows: list[int] = []
        """Packed tokens to be written.

        A token occurs several times if several rollouts have pages of their own for it.
        """
        self.slots: list[int] = []
        """The slot of each of `rows`."""
        self.last: list[int] = []
        """The packed token from which each rollout continues."""
        self._page_tokens = page_tokens
        self._lengths: list[int] = []
        self._prefix: list[int] = []
        for admission in admitted:
            self._add(admission)
        prefix = torch.tensor(self._prefix, dtype=torch.int32)
        self.segments = Segments(cu_seqlens_of(self._lengths), prefix)

    def _add(self, admission: Admission) -> None:
        """Add a prompt, and what each of its rollouts has after it."""
        prompt = self._pack(admission.prompt)
        segment = self._add_segment(prompt, prefix=-1)
        # Pages that the prompt fills are shared, and written once.
        num_full = len(prompt) // self._page_tokens
        num_shared = num_full * self._page_tokens
        shared = prompt[:num_shared]
        rest = prompt[num_shared:]
        self._place(shared, admission.rollouts[0].pages, 0)

        for rollout in admission.rollouts:
            own = self._pack(rollout.tokens)
            if own:
                self._add_segment(own, prefix=segment)
            self._place([*rest, *own], rollout.pages, num_shared)
            last = own[-1] if own else prompt[-1]
            self.last.append(last)

    def _add_segment(self, rows: range, *, prefix: int) -> int:
        """Add a segment, and return its index."""
        self._lengths.append(len(rows))
        self._prefix.append(prefix)
        return len(self._lengths) - 1

    def _pack(self, tokens: Sequence[int]) -> range:
        """Append tokens, and return their rows."""
        first = len(self.ids)
        self.ids += tokens
        return range(first, len(self.ids))

    def _place(self, rows: Sequence[int], pages: Sequence[int], start: int) -> None:
        """Write rows to the positions from `start` on of a sequence with these pages."""
        size = self._page_tokens
        positions = range(start, start + len(rows))
        self.rows += rows
        self.slots += [pages[position // size] * size + position % size for position in positions]


def _members(admitted: Sequence[Admission]) -> list[Rollout]:
    """Return the rollouts of all admissions."""
    members: list[Rollout] = []
    for admission in admitted:
        members += admission.rollouts
    return members
