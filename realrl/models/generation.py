"""Generation with a paged key/value cache and continuous batching, over one data-parallel share's (pp, tp).

Source: continuous batching, Yu et al. 2022 (Orca, OSDI); pages, Kwon et al. 2023, arXiv:2309.06180.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.api.batch import cu_seqlens_of
from realrl.api.config import GenerationConfig
from realrl.api.recipe import NO_BREAKS, Breaks
from realrl.base.progress import Progress, no_progress
from realrl.models.decoder import Decoder
from realrl.models.graphs import CudaRecorder, RecordedStep
from realrl.models.sampling import draw, uniforms
from realrl.models.sequences import Admission, Rollout, Sequences
from realrl.ops.attention import packed_attention
from realrl.ops.cache import KeyValueCache
from realrl.ops.segments import Segments
from realrl.ops.upload import upload
from realrl.parallel.pipeline import StageLink

Ends = Callable[[Sequence[int]], bool]
"""Whether a response ends with its last token."""


_NO_LIMIT = 1 << 62
"""Bytes of a cache whose size is not set."""
PACKING_PAYS = 12
"""New tokens from which on it pays to lay out the weights anew for the products of decoding."""
_RECORDING_PAYS = 64
"""New tokens from which on it pays to record decoding steps as CUDA graphs."""


class _Drawn(NamedTuple):
    """One token a rollout, int64 `[B]`, and two log-probabilities of each, float32 `[B]`."""

    tokens: Tensor
    logprobs: Tensor
    """At the sampling temperature, before top-k and top-p."""
    raw_logprobs: Tensor
    """At temperature 1."""


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
        breaks: Breaks = NO_BREAKS,
        progress: Progress = no_progress,
        why_not_finite: Callable[[], str] = lambda: "",
    ) -> None:
        self._why_not_finite = why_not_finite
        self.decoder, self.link, self.config = decoder, link, config
        self._max_prefill_tokens, self._ends = max_prefill_tokens, ends
        self._current_version, self._breaks, self._progress = version, breaks, progress
        self._device = next(iter(decoder.weights.values())).device
        enders = (*decoder.config.eos_token_ids, *config.stop_token_ids)
        self._enders = tuple(token for token in enders if token < decoder.config.vocab_size)
        self._cache_layers = {layer: i for i, layer in enumerate(decoder.layers)}

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
            self._steps = self._make_steps()
            with self.decoder.packed(num_rows) if pays else nullcontext():
                self._run()
            self._sequences.stop()

    def _run(self) -> None:
        """Until all have ended, or there are new weights."""
        while self._sequences.busy and self._version == self._current_version():
            self._progress(self._sequences.num_done, self._sequences.num_rollouts)
            if self._prefill_some() or self._decode_all():
                with self.decoder.unpacked():
                    self._breaks.take()

    def _prefill_some(self) -> bool:
        """Begin with rollouts that there is room for; True if a break is due."""
        admitted = self._sequences.admit(self._max_prefill_tokens)
        return bool(admitted) and self._choose(self._prefill(admitted), _members(admitted))

    def _decode_all(self) -> bool:
        """A token for each that runs; True if a break is due."""
        self._sequences.grow()
        running = list(self._sequences.running)
        return bool(running) and self._choose(self._decode(running), running)

    def _open(self, rollouts: Sequence[Rollout]) -> None:
        """Make the queue, and a cache of the size that is asked for, or what the rollouts can fill."""
        config, page = self.config, KeyValueCache.tokens_of_page(self._device)
        max_running = min(config.max_sequences, max(len(rollouts), 1))
        longest = max((len(r.prompt) for r in rollouts), default=0) + config.max_new_tokens
        pages_each = -(-longest // page)
        num_pages = min(self._pages_in_memory(), max_running * pages_each)
        self._check_room(num_pages, pages_each)
        self._sequences = Sequences(
            rollouts,
            num_pages=num_pages,
            page_tokens=page,
            max_running=max_running,
            max_new=config.max_new_tokens,
        )
        # One page more is for rows of a recorded step that no sequence has.
        self._cache = KeyValueCache(num_pages=num_pages + 1, **self._cache_shape())
        self._spare_page = num_pages
        self._table = torch.zeros(max_running, pages_each, dtype=torch.int32)
        self._records = self._may_record()

    def _make_steps(self) -> list[Callable[..., Tensor]]:
        """How each chunk of layers decodes, with the weights that there are."""
        steps = [partial(self._decode_chunk, chunk) for chunk in range(len(self.decoder.chunks))]
        if not self._records:
            return steps
        fill = (0, 0, self._spare_page * self._cache.page_tokens, self._spare_page, 0)
        return [RecordedStep(step, fill, CudaRecorder()) for step in steps]

    def _may_record(self) -> bool:
        """Whether decoding pays to be recorded, and has nothing that a graph cannot hold."""
        pays = self.config.max_new_tokens >= _RECORDING_PAYS
        alone = self.decoder.groups.tp is None
        return pays and alone and self._cache.is_recordable

    def _pages_in_memory(self) -> int:
        allowed_bytes = self.config.cache_mib << 20 or _NO_LIMIT
        return allowed_bytes // KeyValueCache.page_bytes(**self._cache_shape())

    def _check_room(self, num_pages: int, pages_each: int) -> None:
        if num_pages < pages_each:
            needed = pages_each * KeyValueCache.page_bytes(**self._cache_shape()) / 2**20
            raise ValueError(
                f"generation.cache_mib: the longest sample needs {needed:.0f} MiB for keys and values, got"
                f" {self.config.cache_mib}; raise it, or lower generation.max_new_tokens"
            )

    def _cache_shape(self) -> dict:
        decoder = self.decoder
        return {
            "num_layers": len(decoder.layers),
            "num_kv_heads": decoder.num_kv_heads,
            "head_dim": decoder.config.head_dim,
            "dtype": next(iter(decoder.weights.values())).dtype,
            "device": self._device,
        }

    def _prefill(self, admitted: Sequence[Admission]) -> Tensor:
        """Each prompt once, then what each rollout has beyond it; the last hidden state of each rollout."""
        packed = _Prefill(admitted, self._cache.page_tokens)
        for rollout in _members(admitted):
            self._show_pages(rollout)
        host = (torch.tensor(x) for x in (packed.ids, packed.rows, packed.slots, packed.last))
        ids, rows, slots, last = upload(list(host), self._device)

        def attend(layer: int, qkv: Tensor) -> Tensor:
            self._cache.write(self._cache_layers[layer], qkv[rows], slots)
            return packed_attention(
                qkv, self.decoder.num_kv_heads, packed.segments, **self.decoder.attention_rule(layer)
            )

        positions = packed.segments.on(self._device).positions
        hidden = self._through_stage(
            len(ids), lambda hidden, chunk: self.decoder.forward(ids, hidden, positions, attend, chunk=chunk)
        )
        return hidden[last]

    def _decode(self, running: Sequence[Rollout]) -> Tensor:
        """The newest token of each running rollout, at its own place."""
        page = self._cache.page_tokens
        for rollout in running:
            if (rollout.length - 1) % page == 0:
                self._show_pages(rollout)
        rows = torch.tensor([r.row for r in running])
        positions = torch.tensor([r.length - 1 for r in running])
        table = self._table[rows]
        if not self._records:
            table = table[:, : int(positions.max()) // page + 1]
        pages = table.gather(1, (positions // page)[:, None])[:, 0]
        slots = pages.long() * page + positions % page
        ids = torch.tensor([r.tokens[-1] for r in running])
        inputs = upload((ids, positions, slots, table), self._device)
        return self._through_stage(len(running), lambda hidden, chunk: self._steps[chunk](*inputs, hidden))

    def _decode_chunk(
        self, chunk: int, ids: Tensor, positions: Tensor, slots: Tensor, table: Tensor, hidden: Tensor | None
    ) -> Tensor:
        lengths = positions + 1

        def attend(layer: int, qkv: Tensor) -> Tensor:
            row = self._cache_layers[layer]
            self._cache.write(row, qkv, slots)
            rule = self.decoder.attention_rule(layer)
            return self._cache.attend(row, qkv[:, : self.decoder.num_heads], table, lengths, **rule)

        return self.decoder.forward(ids, hidden, positions, attend, chunk=chunk)

    def _show_pages(self, rollout: Rollout) -> None:
        self._table[rollout.row, : len(rollout.pages)] = torch.tensor(rollout.pages, dtype=torch.int32)

    def _through_stage(self, num_rows: int, forward: Callable[[Tensor | None, int], Tensor]) -> Tensor:
        for chunk in range(len(self.decoder.chunks)):
            hidden = forward(self.link.receive_hidden(num_rows, chunk), chunk)
            self.link.send_hidden(hidden, chunk)
        self.link.finish()
        return hidden

    def _choose(self, hidden: Tensor, rollouts: Sequence[Rollout]) -> bool:
        """Draw and write down a token for each; True if a break is due now."""
        drawn, is_due = self._agree(self._drawn(hidden, rollouts), len(rollouts))
        columns = zip(rollouts, drawn.tokens.tolist(), drawn.logprobs.tolist(), drawn.raw_logprobs.tolist())
        for rollout, token, logprob, raw_logprob in columns:
            if not math.isfinite(raw_logprob):
                raise FloatingPointError(
                    f"logits are not finite at token {len(rollout.tokens) + 1} of a response:"
                    f" {self._why_not_finite()}"
                )
            rollout.tokens.append(token)
            rollout.logprobs.append(logprob)
            rollout.raw_logprobs.append(raw_logprob)
            rollout.versions.append(self._version)
            rollout.ended = len(rollout.tokens) > self.config.min_new_tokens and self._ends(rollout.tokens)
            if self._sequences.is_done(rollout):
                self._sequences.finish(rollout)
        return is_due

    def _drawn(self, hidden: Tensor, rollouts: Sequence[Rollout]) -> _Drawn | None:
        if not self.decoder.is_last:
            return None
        positions = torch.tensor([len(r.tokens) for r in rollouts])
        numbers = uniforms(torch.tensor([r.seed for r in rollouts]), positions).to(self._device)
        early = (positions < self.config.min_new_tokens).nonzero()[:, 0].to(self._device)
        part = self.decoder.logits_part(hidden)
        tokens = draw(self.decoder.logits(part), numbers, self.config, barred=(early, self._enders))
        raw = self.decoder.label_logprobs(part, tokens, 1.0)
        temperature = self.config.training_temperature
        scaled = raw if temperature == 1 else self.decoder.label_logprobs(part, tokens, temperature)
        return _Drawn(tokens, scaled, raw)

    def _agree(self, drawn: _Drawn | None, count: int) -> tuple[_Drawn, bool]:
        """Every rank of the slice takes what the last stage's first rank drew, and its word on breaks."""
        groups = self.decoder.groups
        if groups.dp_slice is None:
            return _Drawn(*(x.cpu() for x in drawn)), self._breaks.due()
        source = groups.placement.output_ranks(groups.place.dp_rank)[0]
        message = torch.empty(4, max(count, 1), dtype=torch.float64, device=self._device)
        if drawn is not None:
            message[:3, :count] = torch.stack([x.double() for x in drawn])
            message[3] = float(self._breaks.due())
        dist.broadcast(message, src=source, group=groups.dp_slice)
        tokens, logprobs, raw_logprobs = message[:3, :count].cpu()
        return _Drawn(tokens.long(), logprobs.float(), raw_logprobs.float()), bool(message[3, 0])


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
