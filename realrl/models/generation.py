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
import torch.distributed as dist

from realrl.api.config import GenerationConfig
from realrl.api.engine import NO_PREEMPTION, Ends, Preemption
from realrl.base.progress import Progress, no_progress
from realrl.base.waiting import wait_for_ranks
from realrl.models.decode_state import HostBlock
from realrl.models.decoder import Decoder
from realrl.models.decoding import Decoding, DecodingSize, KeptDecoding, Launch, cache_shape
from realrl.models.sequences import Rollout, Sequences
from realrl.ops.cache import KeyValueCache
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
        size = self._needed_size(rollouts)
        decoding = self._kept.take(size)
        if decoding is None:
            new_size = self._kept.size_for(size, self._pages_in_memory())
            decoding = Decoding(self.decoder, self.link, new_size)

        self._decoding = decoding
        self._sequences = Sequences(
            rollouts,
            num_pages=size.num_pages,
            page_tokens=decoding.cache.page_tokens,
            max_running=size.num_rows,
            max_new=self.config.max_new_tokens,
        )
        pays = self.config.max_new_tokens >= PACKING_PAYS
        while self._sequences.busy:
            self._version = self._current_version()
            self._decoding.check_recordings()
            with self.decoder.packed(size.num_rows) if pays else nullcontext():
                self._run()
            self._sequences.stop()

        self._kept.keep(self._decoding)

    def _run(self) -> None:
        """Continue until all rollouts have ended, or there are new weights."""
        sequences = self._sequences
        while sequences.busy and self._version == self._current_version():
            self._progress(sequences.num_done, sequences.num_rollouts)
            admitted = sequences.admit(self._max_prefill_tokens)
            if admitted:
                launch = self._decoding.prefill(self.config, admitted)
                self._finish(launch)

            if not self._is_break_due:
                # What is drawn must be read before a rollout can be preempted for its pages.
                if sequences.lacks_pages:
                    self._read_all()
                sequences.grow()
                running = sequences.decodable
                if running:
                    launch = self._decoding.decode(self.config, running)
                    self._finish(launch)
                else:
                    self._read_all()

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

    def _finish(self, launch: Launch) -> None:
        """Give every rank of the slice what its output rank drew, and read the earliest steps if many wait.

        The output rank alone asks whether a break is due; all ranks read it with the tokens.
        """
        state = self._decoding.state
        groups = self.decoder.groups
        output_ranks = groups.placement.output_ranks(groups.place.dp_rank)
        source = output_ranks[0]
        if groups.rank == source:
            state.mark_break(self._preemption.pending())
        block = state.drawn(launch.num_lanes)
        if groups.dp_slice is not None:
            wait_for_ranks(dist.broadcast, block, src=source, group=groups.dp_slice)
            launch.advance(launch.num_lanes)

        step = _Unread(launch.rollouts, HostBlock(block))
        self._unread.append(step)
        for rollout in launch.rollouts:
            rollout.num_unread += 1
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

    def _needed_size(self, rollouts: Sequence[Rollout]) -> DecodingSize:
        """Return the configured size, or a smaller one if the rollouts cannot fill it."""
        max_running = min(self.config.max_sequences, max(len(rollouts), 1))
        longest_prompt = max((len(rollout.prompt) for rollout in rollouts), default=0)
        longest = longest_prompt + self.config.max_new_tokens
        pages_each = -(-longest // KeyValueCache.tokens_of_page(self._device))
        most_pages = self._pages_in_memory()
        if most_pages < pages_each:
            needed_mib = pages_each * self._page_bytes() / 2**20
            raise ValueError(
                f"generation.cache_mib: the longest sample needs {needed_mib:.0f} MiB for keys and values,"
                f" got {self.config.cache_mib}; raise it, or lower generation.max_new_tokens"
            )

        return DecodingSize(
            num_rows=max_running,
            pages_each=pages_each,
            num_pages=min(most_pages, max_running * pages_each),
        )

    def _pages_in_memory(self) -> int:
        """Return the number of pages that the configured size allows."""
        allowed_bytes = self.config.cache_mib << 20
        if not allowed_bytes:
            allowed_bytes = _NO_LIMIT
        return allowed_bytes // self._page_bytes()

    def _page_bytes(self) -> int:
        return KeyValueCache.page_bytes(**cache_shape(self.decoder))
