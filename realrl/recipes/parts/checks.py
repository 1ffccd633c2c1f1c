"""What the rewards of a config say of responses: each one's part of the sum, verdicts, and who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.recipes.parts.config import PolicyConfig, ScoreConfig
from realrl.rewards.functions import GYM, MATH
from realrl.rewards.verdict import Verdict


class Response(NamedTuple):
    """A sample as text."""

    prompt: str
    response: str
    solutions: Sequence[str]


@dataclass(kw_only=True)
class Graded:
    """What the checks of some responses found."""

    weights: dict[str, float]
    """Each reward's weight by name; one without weight is only reported."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Each reward `[B]` by name; 0 where it says nothing."""
    has_part: dict[str, Tensor] = field(default_factory=dict)
    """Bool `[B]` by name: whether that reward says something of the response."""
    verdicts: list[Verdict] | None = None
    """By the verifier or a task's scorer; None where neither rewards."""
    answers: list[str | None] = field(default_factory=list)
    """Those that the verdicts are about."""

    def add(self, name: str, rewards: Sequence[float | None]) -> None:
        """Note one reward of each response; None where it says nothing."""
        numbers = [0.0 if reward is None else reward for reward in rewards]
        is_said = [reward is not None for reward in rewards]
        self.parts[name] = torch.tensor(numbers)
        self.has_part[name] = torch.tensor(is_said, dtype=torch.bool)

    @property
    def is_graded(self) -> Tensor:
        """Bool `[B]`: whether every reward that has a weight says something."""
        counting = [has for name, has in self.has_part.items() if self.weights[name]]
        if not counting:
            counting = [torch.ones_like(has) for has in self.has_part.values()]
        return torch.stack(counting).all(dim=0)

    @property
    def total(self) -> Tensor:
        """The weighted sum of the rewards: `[B]`."""
        total = torch.zeros(len(self.is_graded))
        for name, weight in self.weights.items():
            total = total + weight * self.parts[name]
        return total


def score(scores: ScoreConfig, verdict: Verdict, share: float) -> float | None:
    """Return the reward of a response with this verdict and share of a right answer; None: it has none."""
    if verdict in (Verdict.TIMEOUT, Verdict.ERROR):
        return scores.ungraded
    return scores.wrong + share * (scores.correct - scores.wrong)


def truncated_as_wrong(config: PolicyConfig, graded: Graded, batch: PackedBatch) -> Graded:
    """Return, with `scores.truncated: wrong`, truncated responses graded as wrong ones are."""
    if config.scores.truncated != "wrong":
        return graded
    ended = batch["ended"]
    parts: dict[str, Tensor] = {}
    has_part: dict[str, Tensor] = {}
    for name, part in graded.parts.items():
        is_verdict = name in (MATH, GYM)
        parts[name] = torch.where(ended, part, config.scores.wrong) if is_verdict else part
        # Whatever its check says, what a truncated response is worth is known.
        has_part[name] = graded.has_part[name] | ~ended
    verdicts = graded.verdicts
    if verdicts is not None:
        graded_so = zip(verdicts, ended.tolist())
        verdicts = [_of_ended(verdict, has_ended) for verdict, has_ended in graded_so]
    return replace(graded, verdicts=verdicts, parts=parts, has_part=has_part)


def _of_ended(verdict: Verdict, ended: bool) -> Verdict:
    """Return the verdict, but not that a truncated response is right."""
    is_right_but_cut = verdict is Verdict.CORRECT and not ended
    return Verdict.WRONG if is_right_but_cut else verdict


def takes_part(config: PolicyConfig, is_graded: Tensor, ended: Tensor) -> Tensor:
    """Return whether a sample is trained on and counts in its group: bool `[B]`."""
    return is_graded & (ended | (config.scores.truncated != "left_out"))


def groups_of(config: PolicyConfig, batch: PackedBatch) -> Tensor:
    """Return the number of each sample's prompt within the step's batch: int64 `[B]`."""
    groups = [sample.id // config.ppo.group_size for sample in batch.samples]
    return torch.tensor(groups, dtype=torch.long)


def response_lengths(batch: PackedBatch) -> Tensor:
    """Return the response tokens of each sample: int64 `[B]`."""
    lengths = [int(part.sum()) for part in batch.unpacked("loss_mask")]
    return torch.tensor(lengths, dtype=torch.long)
