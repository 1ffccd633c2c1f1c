"""Generation as every engine offers it: what to draw, when a response ends, and the batch of results.

An engine adds only `_draw`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from realrl.api.batch import PackedBatch
from realrl.api.config import GenerationConfig
from realrl.api.engine import NO_PREEMPTION, NO_WEIGHTS, Ends, Preemption
from realrl.base.progress import Progress, no_progress
from realrl.base.seeding import derive_seed
from realrl.models.sequences import Rollout, batch_of


@dataclass(frozen=True)
class StopRule:
    """When a response ends before it reaches its greatest length."""

    token_ids: tuple[int, ...]
    """Tokens that end a response: the model's own and the config's."""
    ends: Ends | None
    """What else ends a response, such as a string."""

    def __call__(self, tokens: Sequence[int]) -> bool:
        """Return whether a response ends with its last token."""
        if tokens[-1] in self.token_ids:
            return True
        return self.ends is not None and self.ends(tokens)

    def length(self, tokens: Sequence[int], min_tokens: int) -> int | None:
        """Return the length at which a response first ends, more than `min_tokens`; None if it does not."""
        for length in range(min_tokens + 1, len(tokens) + 1):
            if self(tokens[:length]):
                return length

        return None


@dataclass(frozen=True)
class GenerationRequest:
    """Rollouts to draw."""

    rollouts: Sequence[Rollout]
    """They have a prompt and a seed each; an engine writes the rest."""
    config: GenerationConfig
    stops: StopRule
    preemption: Preemption


class GeneratingEngine(ABC):
    """The part of `api.engine.Engine` that does not depend on what draws the tokens."""

    def __init__(self, end_token_ids: Sequence[int]) -> None:
        """`end_token_ids`: the model's own tokens that end a response."""
        self.version = NO_WEIGHTS
        """Training steps behind the weights."""
        self._end_token_ids = tuple(end_token_ids)
        self._progress: Progress = no_progress

    @contextmanager
    def reporting(self, progress: Progress) -> Iterator[None]:
        """Within this context, call `progress` as `api.engine.HoldsWeights.reporting` says."""
        before = self._progress
        self._progress = progress

        try:
            yield
        finally:
            self._progress = before

    def generate(
        self,
        batch: PackedBatch,
        config: GenerationConfig,
        *,
        seed: int,
        step: int,
        ends: Ends | None = None,
        preemption: Preemption = NO_PREEMPTION,
    ) -> PackedBatch:
        """Return a response to each of `prompts`; see `api.engine.Generates.generate`."""
        rollouts: list[Rollout] = []
        for sample, prompt in zip(batch.samples, batch.unpacked("prompts"), strict=True):
            ids = tuple(prompt.tolist())
            own_seed = derive_seed(seed, step, sample.id)
            rollouts.append(Rollout(ids, own_seed))

        stops = StopRule((*self._end_token_ids, *config.stop_token_ids), ends)
        self._draw(GenerationRequest(rollouts, config, stops, preemption))
        return batch_of(batch.samples, rollouts)

    @abstractmethod
    def _draw(self, request: GenerationRequest) -> None:
        """Continue every rollout until it ends or has `max_new_tokens`.

        Each token gets its log-probability at the sampling temperature and at temperature 1, and the version
        of the weights that drew it.

        Raises:
            FloatingPointError: a log-probability is not finite.
        """
