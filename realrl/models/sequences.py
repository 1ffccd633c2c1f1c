"""Samples while they are generated, and the choice of those that run next.

waiting -- admit --> running -- finish --> done
   ^                    |
   +--- grow, stop -----+        preempted: their pages are released, their tokens computed again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.models.pages import PagePool


@dataclass(eq=False)
class Rollout:
    """One sample: its prompt, and the tokens generated so far, with log-probabilities for each."""

    prompt: tuple[int, ...]
    seed: int
    """The seed of this sample alone: see `realrl.models.sampling.uniforms`."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    """Under the distribution at the sampling temperature."""
    raw_logprobs: list[float] = field(default_factory=list)
    """Under the model's own distribution, at temperature 1."""
    versions: list[int] = field(default_factory=list)
    """The version of the weights that drew each token."""
    ended: bool = False
    """Whether a token or a string ended it, rather than its length."""
    pages: list[int] = field(default_factory=list)
    """Pages of the key/value cache, in order; a prompt's shared pages come first."""
    row: int = -1
    """The row among the running ones; -1 if it does not run."""
    num_unread: int = 0
    """Tokens that are drawn, and not read from the device yet."""

    @property
    def length(self) -> int:
        """The number of tokens, of the prompt and drawn."""
        return len(self.prompt) + self.num_drawn

    @property
    def num_drawn(self) -> int:
        """The number of drawn tokens, including those that are not read from the device yet."""
        return len(self.tokens) + self.num_unread


@dataclass(frozen=True)
class Admission:
    """Rollouts of one prompt that begin, or resume, together."""

    prompt: tuple[int, ...]
    rollouts: tuple[Rollout, ...]

    @property
    def num_tokens(self) -> int:
        """The tokens to compute before decoding: the prompt once, and what each rollout has after it."""
        return len(self.prompt) + sum(len(rollout.tokens) for rollout in self.rollouts)


def _prompt_length(rollout: Rollout) -> int:
    return len(rollout.prompt)


class Sequences:
    """The waiting and the running rollouts, and the pages of the running ones.

    A pure state machine, so that every rank of a slice makes the same decisions. Longest prompts go first. A
    rollout gets pages as it grows. If no page is free, the rollout that was admitted last is preempted: it
    releases its pages, and waits to be computed again.
    """

    def __init__(
        self, rollouts: Sequence[Rollout], *, num_pages: int, page_tokens: int, max_running: int, max_new: int
    ) -> None:
        self.running: list[Rollout] = []
        self.num_rollouts = len(rollouts)
        self._pool = PagePool(num_pages)
        self._page_tokens = page_tokens
        self._max_new = max_new
        self._rows = list(range(max_running - 1, -1, -1))
        """Rows that are free; the next one is last."""

        self._waiting = [rollout for rollout in rollouts if not self.is_done(rollout)]
        # Stable: rollouts of one prompt stay together.
        self._waiting.sort(key=_prompt_length, reverse=True)
        longest = 0
        for rollout in rollouts:
            longest = max(longest, _prompt_length(rollout) + max_new)
        assert self.pages_for(longest) <= num_pages, "the cache cannot hold one rollout"

    @property
    def busy(self) -> bool:
        """Whether a rollout runs or waits."""
        return bool(self.running or self._waiting)

    @property
    def num_done(self) -> int:
        """The number of rollouts that neither run nor wait."""
        return self.num_rollouts - len(self.running) - len(self._waiting)

    def is_done(self, rollout: Rollout) -> bool:
        """Whether a rollout needs no more tokens."""
        return rollout.ended or len(rollout.tokens) >= self._max_new

    @property
    def decodable(self) -> list[Rollout]:
        """The running rollouts for which a token can be drawn before the drawn ones are read."""
        return [rollout for rollout in self.running if rollout.num_drawn < self._max_new]

    @property
    def lacks_pages(self) -> bool:
        """Whether `grow` would preempt rollouts, whose tokens must be read before that."""
        num_needed = sum(map(self._needs_page, self.running))
        return num_needed > self._pool.num_free

    def pages_for(self, num_tokens: int) -> int:
        """Return the number of pages for a sequence of tokens."""
        return -(-num_tokens // self._page_tokens)

    def admit(self, max_tokens: int) -> list[Admission]:
        """Run as many waiting rollouts as rows, pages and `max_tokens` to compute allow.

        If nothing runs, at least one is admitted. Neighbours of one prompt share the pages that it fills.
        """
        admitted: list[Admission] = []
        budget = max_tokens
        while self._waiting and self._rows:
            is_idle = not admitted and not self.running
            chosen = self._next(budget, must=is_idle)
            if not chosen:
                break
            admission = self._start(chosen)
            admitted.append(admission)
            budget -= admission.num_tokens
        return admitted

    def grow(self) -> list[Rollout]:
        """Give each running rollout room for one more token, and return those that were preempted."""
        preempted: list[Rollout] = []
        for rollout in list(self.running):
            is_running = rollout.row >= 0
            if not is_running or not self._needs_page(rollout):
                continue
            while not self._pool.num_free and self.running[-1] is not rollout:
                preempted.append(self._preempt_last())
            if self._pool.num_free:
                rollout.pages += self._pool.take(1)
            else:
                preempted.append(self._preempt_last())
        return preempted

    def finish(self, rollout: Rollout) -> None:
        """Stop a rollout, and release its pages and its row."""
        self.running.remove(rollout)
        self._pool.release(rollout.pages)
        self._rows.append(rollout.row)
        rollout.pages = []
        rollout.row = -1

    def stop(self) -> None:
        """Preempt all rollouts; they can be admitted again."""
        while self.running:
            self._preempt_last()

    def _needs_page(self, rollout: Rollout) -> bool:
        """Whether the newest token, which the next step puts into the cache, has no page."""
        return rollout.length > len(rollout.pages) * self._page_tokens

    def _preempt_last(self) -> Rollout:
        last = self.running[-1]
        assert not last.num_unread, "a rollout with unread tokens cannot be computed again"
        self.finish(last)
        self._waiting.insert(0, last)
        return last

    def _next(self, budget: int, *, must: bool) -> list[Rollout]:
        """Return the first waiting rollouts of one prompt that fit; with `must`, at least one."""
        prompt = self._waiting[0].prompt
        num_shared = len(prompt) // self._page_tokens
        # Each running rollout keeps a page to grow into.
        pages_left = self._pool.num_free - len(self.running) - num_shared
        tokens_left = budget - len(prompt)
        chosen: list[Rollout] = []
        for rollout in self._waiting:
            if rollout.prompt != prompt or len(chosen) == len(self._rows):
                break

            num_own = self.pages_for(rollout.length) - num_shared
            pages_left -= num_own + 1
            tokens_left -= len(rollout.tokens)
            fits = pages_left >= 0 and tokens_left >= 0
            is_needed = must and not chosen
            if not fits and not is_needed:
                break
            chosen.append(rollout)
        return chosen

    def _start(self, chosen: list[Rollout]) -> Admission:
        """Give rows and pages to the first waiting rollouts, which are those of one prompt."""
        del self._waiting[: len(chosen)]
        prompt = chosen[0].prompt
        num_shared = len(prompt) // self._page_tokens
        shared = self._pool.take(num_shared)
        for index, rollout in enumerate(chosen):
            if index > 0:
                self._pool.share(shared)
            num_own = self.pages_for(rollout.length) - num_shared
            own = self._pool.take(num_own)
            rollout.pages = shared + own
            rollout.row = self._rows.pop()
            self.running.append(rollout)
        return Admission(prompt, tuple(chosen))


def batch_of(samples: Sequence[Sample], rollouts: Sequence[Rollout]) -> PackedBatch:
    """Return prompts and responses end to end.

    A prompt's tokens are not in `loss_mask`. They have log-probability 0 and version -1.
    """
    ids: list[int] = []
    loss_mask: list[bool] = []
    logprobs: list[float] = []
    raw_logprobs: list[float] = []
    versions: list[int] = []
    for rollout in rollouts:
        num_prompt = len(rollout.prompt)
        ids += rollout.prompt
        loss_mask += [False] * num_prompt
        logprobs += [0.0] * num_prompt
        raw_logprobs += [0.0] * num_prompt
        versions += [-1] * num_prompt

        ids += rollout.tokens
        loss_mask += [True] * len(rollout.tokens)
        logprobs += rollout.logprobs
        raw_logprobs += rollout.raw_logprobs
        versions += rollout.versions

    tokens = {
        "input_ids": torch.tensor(ids, dtype=torch.long),
        "loss_mask": torch.tensor(loss_mask, dtype=torch.bool),
        "logprobs": torch.tensor(logprobs, dtype=torch.float32),
        "raw_logprobs": torch.tensor(raw_logprobs, dtype=torch.float32),
        "policy_versions": torch.tensor(versions, dtype=torch.long),
    }
    lengths = [rollout.length for rollout in rollouts]
    ended = [rollout.ended for rollout in rollouts]
    return PackedBatch(
        tuple(samples),
        cu_seqlens_of(lengths),
        tokens,
        per_sample={"ended": torch.tensor(ended, dtype=torch.bool)},
    )
