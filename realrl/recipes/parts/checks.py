"""What the rewards of a config say of responses: verdicts, and each reward's part of the sum.

responses ──▶ verifier | task's scorer | reward model | functions ──▶ Graded ──▶ rewards [B]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext
from realrl.recipes.parts.config import PolicyConfig, ScoreConfig
from realrl.rewards.budget import seconds_for
from realrl.rewards.functions import GYM, MATH, MODEL, rewards_by, weights_of
from realrl.rewards.gym import answer_of, score_all
from realrl.rewards.math import check_all
from realrl.rewards.verdict import Verdict


class Response(NamedTuple):
    """A sample as text."""

    prompt: str
    response: str
    solutions: Sequence[str]


class Graded(NamedTuple):
    """What the checks of some responses found."""

    verdicts: list[Verdict] | None
    """By the verifier or a task's scorer; None where neither rewards."""
    answers: list[str | None]
    """Those that the verdicts are about."""
    parts: dict[str, Tensor]
    """Each reward `[B]` by name; 0 where it says nothing."""
    has_part: dict[str, Tensor]
    """Bool `[B]` by name: whether that reward says something of the response."""
    weights: dict[str, float]
    """Each reward's weight by name; one without weight is only reported."""

    @property
    def is_graded(self) -> Tensor:
        """Bool `[B]`: whether every reward that has a weight says something."""
        counting = [has for name, has in self.has_part.items() if self.weights[name]]
        if not counting:
            counting = [torch.ones_like(has) for has in self.has_part.values()]
        return torch.stack(counting).all(dim=0)


class _Said(NamedTuple):
    """What one reward says of some responses."""

    rewards: list[float | None]
    """None where it says nothing."""
    verdicts: list[Verdict] | None = None
    answers: list[str | None] = []


def grade(ctx: CallContext[PolicyConfig], responses: Sequence[Response], batch: PackedBatch) -> Graded:
    """Ask each reward about each response."""
    weights = weights_of(ctx.config.reward)
    verdicts: list[Verdict] | None = None
    answers: list[str | None] = []
    parts: dict[str, Tensor] = {}
    has_part: dict[str, Tensor] = {}
    for name in weights:
        said = _ask(ctx, name, responses, batch)
        if said.verdicts is not None:
            verdicts = said.verdicts
            answers = said.answers
        parts[name] = _numbers(said.rewards)
        has_part[name] = _is_said(said.rewards)
    return Graded(verdicts, answers, parts, has_part, weights)


def _numbers(rewards: Sequence[float | None]) -> Tensor:
    """Return rewards as a tensor `[B]`, with 0 for none."""
    numbers = [0.0 if reward is None else reward for reward in rewards]
    return torch.tensor(numbers)


def _is_said(rewards: Sequence[float | None]) -> Tensor:
    """Return whether there is a reward: bool `[B]`."""
    is_said = [reward is not None for reward in rewards]
    return torch.tensor(is_said, dtype=torch.bool)


def _ask(
    ctx: CallContext[PolicyConfig], name: str, responses: Sequence[Response], batch: PackedBatch
) -> _Said:
    if name == MATH:
        return _by_verifier(ctx, responses)
    if name == GYM:
        return _by_task(ctx, responses, batch)
    if name == MODEL:
        return _Said(batch["scores"].tolist())
    prompts = [response.prompt for response in responses]
    texts = [response.response for response in responses]
    solutions = [response.solutions for response in responses]
    return _Said(rewards_by(name, prompts, texts, solutions, ctx.progress))


def _by_verifier(ctx: CallContext[PolicyConfig], responses: Sequence[Response]) -> _Said:
    scores = ctx.config.scores
    checked = check_all(
        [response.response for response in responses],
        [response.solutions for response in responses],
        progress=ctx.progress,
        budget_s=seconds_for(len(responses), ctx.config.call_timeout_s),
        convert_units=scores.convert_units,
    )
    verdicts = [check.verdict for check in checked]
    answers = [check.answer for check in checked]
    rewards: list[float | None] = []
    for verdict in verdicts:
        share = float(verdict is Verdict.CORRECT)
        rewards.append(score(scores, verdict, share))
    return _Said(rewards, verdicts, answers)


def _by_task(ctx: CallContext[PolicyConfig], responses: Sequence[Response], batch: PackedBatch) -> _Said:
    scored = score_all(
        [ctx.dataset.gym(sample.row) for sample in batch.samples],
        [response.response for response in responses],
        progress=ctx.progress,
        budget_s=seconds_for(len(responses), ctx.config.call_timeout_s),
    )
    scores = ctx.config.scores
    rewards: list[float | None] = []
    verdicts: list[Verdict] = []
    answers: list[str | None] = []
    for response, found in zip(responses, scored):
        reward = score(scores, found.verdict, found.score)
        answer = answer_of(response.response)
        rewards.append(reward)
        verdicts.append(found.verdict)
        answers.append(answer or None)
    return _Said(rewards, verdicts, answers)


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
    return graded._replace(verdicts=verdicts, parts=parts, has_part=has_part)


def _of_ended(verdict: Verdict, ended: bool) -> Verdict:
    """Return the verdict, but not that a truncated response is right."""
    is_right_but_cut = verdict is Verdict.CORRECT and not ended
    return Verdict.WRONG if is_right_but_cut else verdict


def summed(config: PolicyConfig, graded: Graded, batch: PackedBatch) -> Tensor:
    """Return the weighted sum of the rewards: `[B]`.

    A truncated response, where it counts as wrong, has no more than a wrong one gets from the verifier.
    """
    rewards = torch.zeros(len(batch))
    by_verifier = 1.0
    for name, weight in graded.weights.items():
        rewards = rewards + weight * graded.parts[name]
        if name in (MATH, GYM):
            by_verifier = weight
    if config.scores.truncated != "wrong":
        return rewards
    at_most_wrong = rewards.clamp(max=by_verifier * config.scores.wrong)
    return torch.where(batch["ended"], rewards, at_most_wrong)
