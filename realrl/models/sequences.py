"""Samples while they are generated, and which of them run next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.models.pages import PagePool


@dataclass(eq=False)
class Rollout:
    """One sample: its prompt and what was generated so far, with a log-probability for each token."""

    prompt: tuple[int, ...]
    seed: int
    """Of the sample alone: see `realrl.models.sampling.uniforms`."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Under the distribution at the sampling temperature."""
    raw_logprobs: list[float] = field(default_factory=list)
    """Under the model's own distribution, at temperature 1."""
    versions: list[int] = field(default_factory=list)
    """Of the weights that each token was drawn with."""
    ended: bool = False
    """By a token or a string that ends it, not for its length."""
    pages: list[int] = field(default_factory=list)
    """Of the key/value cache, in order; those of a prompt that others share come first."""
    row: int = -1
    """Its place among the running ones."""
    num_unread: int = 0
    """Tokens that are drawn, and not read from the device yet."""

    @property
    def length(self) -> int:
        return len(self.prompt) + self.num_drawn

    @property
    def num_drawn(self) -> int:
        return len(self.tokens) + self.num_unread


@dataclass(frozen=True)
class Admission:
    """Rollouts of one prompt that start, or go on, together."""

    prompt: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

    @property
    def num_tokens(self) -> int:
        """To be computed before they can go on: the prompt once, and what each has beyond it."""
        return len(self.prompt) + sum(len(r.tokens) for r in self.rollouts)


class Sequences:
    """The waiting and the running rollouts, and the pages of the running ones.

    A pure state machine, so that every rank of a slice comes to the same decisions. Longest prompts go first.
    A rollout gets pages as it grows; where none is free, the one that was admitted last gives its own back
    and waits to be computed again.
    """

    def __init__(
        self, rollouts: Sequence[Rollout], *, num_pages: int, page_tokens: int, max_running: int, max_new: int
    ) -> None:
        self.running: list[Rollout] = []
        self._pool, self._page_tokens = PagePool(num_pages), page_tokens
        self._max_new, self.num_rollouts = max_new, len(rollouts)
        self._rows = list(range(max_running - 1, -1, -1))
        self._waiting = sorted(
            (r for r in rollouts if not self.is_done(r)), key=lambda r: len(r.prompt), reverse=True
        )
        longest = max((len(r.prompt) + max_new for r in rollouts), default=0)
        assert self.pages_for(longest) <= num_pages, "the cache cannot hold one rollout"

    @property
    def busy(self) -> bool:
        return bool(self.running or self._waiting)

    @property
    def num_done(self) -> int:
        return self.num_rollouts - len(self.running) - len(self._waiting)

    def is_done(self, rollout: Rollout) -> bool:
        return rollout.ended or len(rollout.tokens) >= self._max_new

    @property
    def decodable(self) -> list[Rollout]:
        """The running rollouts that a token can be drawn for, before those that are drawn have been read."""
        return [rollout for rollout in self.running if rollout.num_drawn < self._max_new]

    @property
    def lacks_pages(self) -> bool:
        """Whether `grow` would have to put rollouts back. Their tokens must have been read before."""
        return sum(map(self._needs_page, self.running)) > self._pool.num_free

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self._page_tokens)

    def admit(self, max_tokens: int) -> list[Admission]:
        """Let waiting rollouts run, as many as rows, pages and `max_tokens` to compute allow; one at least
        where nothing runs. Neighbours of one prompt share the pages that it fills.
        """
        admitted: list[Admission] = []
        budget = max_tokens
        while self._waiting and self._rows:
            chosen = self._next(budget, must=not admitted and not self.running)
            if not chosen:
                break
            admitted.append(self._start(chosen))
            budget -= admitted[-1].num_tokens
        return admitted

    def grow(self) -> list[Rollout]:
        """Give each running rollout a place for one token more; returns those that had to be put back."""
        put_back: list[Rollout] = []
        for rollout in list(self.running):
            if rollout.row < 0 or not self._needs_page(rollout):
                continue
            while not self._pool.num_free and self.running[-1] is not rollout:
                put_back.append(self._put_back())
            if self._pool.num_free:
                rollout.pages += self._pool.take(1)
            else:
                put_back.append(self._put_back())
        return put_back

    def finish(self, rollout: Rollout) -> None:
        """It runs no more, and its pages are free."""
        self.running.remove(rollout)
        self._pool.release(rollout.pages)
        self._rows.append(rollout.row)
        rollout.pages, rollout.row = [], -1

    def stop(self) -> None:
        """None runs any more; all can be started again later."""
        while self.running:
            self._put_back()

    def _needs_page(self, rollout: Rollout) -> bool:
        """For the newest token, which the next step puts into the cache."""
        return rollout.length > len(rollout.pages) * self._page_tokens

    def _put_back(self) -> Rollout:
        last = self.running[-1]
        assert not last.num_unread, "a rollout with unread tokens cannot be computed again"
        self.finish(last)
        self._waiting.insert(0, last)
        return last

    def _next(self, budget: int, *, must: bool) -> list[Rollout]:
        """The first waiting rollouts of one prompt that fit."""
        prompt = self._waiting[0].prompt
        shared = len(prompt) // self._page_tokens
        # A page to grow into is kept for each one that runs.
        pages = self._pool.num_free - len(self.running) - shared
        tokens = budget - len(prompt)
        chosen: list[Rollout] = []
        for rollout in self._waiting:
            if rollout.prompt != prompt or len(chosen) == len(self._rows):
                break
            own = self.pages_for(rollout.length) - shared
            pages, tokens = pages - own - 1, tokens - len(rollout.tokens)
            if (pages < 0 or tokens < 0) and not (must and not chosen):
                break
            chosen.append(rollout)
        return chosen

    def _start(self, chosen: list[Rollout]) -> Admission:
        del self._waiting[: len(chosen)]
        prompt = chosen[0].prompt
        shared = self._pool.take(len(prompt) // self._page_tokens)
        for index, rollout in enumerate(chosen):
            if index:
                self._pool.share(shared)
            own = self._pool.take(self.pages_for(rollout.length) - len(shared))
            rollout.pages, rollout.row = shared + own, self._rows.pop()
            self.running.append(rollout)
        return Admission(prompt, tuple(chosen))


def rollouts_of(batch: PackedBatch, seeds: Sequence[int]) -> list[Rollout]:
    """The rollouts that a batch of `prompts` begins."""
    prompts = batch.unpacked("prompts")
    return [Rollout(tuple(p.tolist()), seed) for p, seed in zip(prompts, seeds, strict=True)]


def batch_of(samples: Sequence[Sample], rollouts: Sequence[Rollout]) -> PackedBatch:
    """Prompts and responses end to end; a prompt's tokens are unmasked: log-probability 0, version -1."""

    def flat(dtype: torch.dtype, of_prompt: Callable, of_response: Callable) -> torch.Tensor:
        return torch.tensor([x for r in rollouts for x in (*of_prompt(r), *of_response(r))], dtype=dtype)

    def written(dtype: torch.dtype, fill: float, of_response: Callable) -> torch.Tensor:
        return flat(dtype, lambda r: [fill] * len(r.prompt), of_response)

    tokens = {
        "input_ids": flat(torch.long, lambda r: r.prompt, lambda r: r.tokens),
        "loss_mask": written(torch.bool, False, lambda r: [True] * len(r.tokens)),
        "logprobs": written(torch.float32, 0.0, lambda r: r.logprobs),
        "raw_logprobs": written(torch.float32, 0.0, lambda r: r.raw_logprobs),
        "policy_versions": written(torch.long, -1, lambda r: r.versions),
    }
    ended = torch.tensor([r.ended for r in rollouts], dtype=torch.bool)
    return PackedBatch(tuple(samples), cu_seqlens_of(r.length for r in rollouts), tokens, {"ended": ended})
