"""What the rewards of a config say of responses: each one's part of the sum, verdicts, and who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.recipe import Mean
from realrl.recipes.parts.config import PolicyConfig, ScoreConfig
from realrl.rewards.functions import GYM, MATH
from realrl.rewards.verdict import Verdict


class Response(NamedTuple):
    """A sample as text."""

    prompt: str
    response: str
    solutions: Sequence[str]


class HasVerdict(Protocol):
    """What a check found in a response."""

    @property
    def verdict(self) -> Verdict:
        """The result of the check."""

    @property
    def answer(self) -> str | None:
        """The answer that the verdict is about; None if there is none."""


@dataclass(kw_only=True)
class Graded:
    """What the checks of some responses found."""

    weights: dict[str, Tensor]
    """Each reward's weight by name, float64 `[B]`: 0 where it is only reported, NaN where the response's row
    does not have it."""
    parts: dict[str, Tensor] = field(default_factory=dict)
    """Each reward `[B]` by name; 0 where it says nothing."""
    has_part: dict[str, Tensor] = field(default_factory=dict)
    """Bool `[B]` by name: whether that reward says something of the response."""
    verdicts: list[Verdict | None] | None = None
    """By the verifier or a task's scorer, None for a response that neither rewards; None where neither
    rewards any."""
    answers: list[str | None] = field(default_factory=list)
    """Those that the verdicts are about."""
    metrics: dict[str, Mean] = field(default_factory=dict)
    """What is reported of the checks besides."""

    def places(self, name: str) -> list[int]:
        """Return the responses whose row has a reward."""
        found: list[int] = self.asked(name).nonzero()[:, 0].tolist()
        return found

    def asked(self, name: str) -> Tensor:
        """Return whether each response's row has a reward: bool `[B]`."""
        return ~self.weights[name].isnan()

    def weight(self, name: str) -> Tensor:
        """Return the weight of a reward in each response's sum: float64 `[B]`, 0 where the row has it not."""
        return self.weights[name].nan_to_num(nan=0.0)

    def add(self, name: str, rewards: Sequence[float | None]) -> None:
        """Note one reward of each of `places`; None where it says nothing."""
        size = len(self.weights[name])
        part = torch.zeros(size)
        has_part = torch.zeros(size, dtype=torch.bool)
        places = torch.tensor(self.places(name), dtype=torch.long)
        numbers = [0.0 if reward is None else reward for reward in rewards]
        is_said = [reward is not None for reward in rewards]
        part[places] = torch.tensor(numbers)
        has_part[places] = torch.tensor(is_said, dtype=torch.bool)
        self.parts[name] = part
        self.has_part[name] = has_part

    def add_verdicts(self, name: str, found: Sequence[HasVerdict]) -> None:
        """Note a verdict on each of `places`, and the answer that it is about."""
        size = len(self.weights[name])
        if self.verdicts is None:
            self.verdicts = [None] * size
            self.answers = [None] * size
        for place, each in zip(self.places(name), found, strict=True):
            self.verdicts[place] = each.verdict
            self.answers[place] = each.answer

    @property
    def is_graded(self) -> Tensor:
        """Bool `[B]`: whether every reward that has a weight says something."""
        lacking = [(self.weight(name) != 0) & ~has for name, has in self.has_part.items()]
        return ~torch.stack(lacking).any(dim=0)

    @property
    def total(self) -> Tensor:
        """The weighted sum of the rewards: `[B]`."""
        total = torch.zeros(len(self.is_graded))
        for name in self.weights:
            total = total + self.weight(name).float() * self.parts[name]
        return total

    @property
    def verdict_weight(self) -> Tensor:
        """The weight of the verifier's or the scorer's reward; 1 without either: float64 `[B]`."""
        found = torch.ones(len(self.is_graded), dtype=torch.double)
        for name in (GYM, MATH):
            if name in self.weights:
                found = torch.where(self.asked(name), self.weights[name], found)
        return found


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
        has_part[name] = graded.asked(name) & (graded.has_part[name] | ~ended)
    verdicts = graded.verdicts
    if verdicts is not None:
        graded_so = zip(verdicts, ended.tolist())
        verdicts = [_of_ended(verdict, has_ended) for verdict, has_ended in graded_so]
    return replace(graded, verdicts=verdicts, parts=parts, has_part=has_part)


def _of_ended(verdict: Verdict | None, ended: bool) -> Verdict | None:
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
