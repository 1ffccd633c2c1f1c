"""Asks each reward of a run about the responses whose rows have it.

responses ──▶ math | gym ──▶ verdicts ──┬──▶ functions | judge ──▶ Graded
          └─▶ model ────────────────────┘
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, Mean
from realrl.recipes.parts.checks import Graded, Response, score
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.reward_names import looks_at_samples
from realrl.recipes.parts.reward_samples import reward_samples, sources_of, weights_by_name
from realrl.rewards.budget import seconds_for
from realrl.rewards.calling import rewards_by
from realrl.rewards.functions import BUILT_IN, FORMAT, GYM, JUDGE, MATH, MODEL
from realrl.rewards.gym import GymItem, answer_of, score_all
from realrl.rewards.llm_judge import judge_all
from realrl.rewards.math import check_all
from realrl.rewards.samples import RewardSample
from realrl.rewards.verdict import Verdict
from realrl.verifier.strict import follows


class _Found(NamedTuple):
    """What a check found in a response."""

    verdict: Verdict
    answer: str | None
    share: float
    """How much of a right answer it is, from 0 to 1."""


def grade(ctx: CallContext[PolicyConfig], responses: Sequence[Response], batch: PackedBatch) -> Graded:
    """Ask each reward about each response whose row has it.

    Raises:
        RuntimeError: a function failed, a judge refuses the key, or a check cannot start.
    """
    sources = sources_of(ctx, batch)
    graded = Graded(weights=weights_by_name(ctx.config, sources))
    if MATH in graded.weights:
        found = _by_math(ctx, graded.places(MATH), responses, batch)
        _add_verdicts(ctx.config, graded, MATH, found)
    if GYM in graded.weights:
        found = _by_gym(ctx, graded.places(GYM), responses, batch)
        _add_verdicts(ctx.config, graded, GYM, found)
    if MODEL in graded.weights:
        scores = batch["scores"].tolist()
        graded.add(MODEL, [scores[place] for place in graded.places(MODEL)])
    if FORMAT in graded.weights:
        graded.add(FORMAT, _by_form(ctx, graded.places(FORMAT), responses, batch))
    # Functions may look at the verdicts, whatever the order of their names.
    if looks_at_samples(ctx.config):
        samples = reward_samples(ctx, responses, graded.verdicts, batch)
        _ask_about_samples(ctx, graded, samples)
    return graded


def _by_math(
    ctx: CallContext[PolicyConfig], places: Sequence[int], responses: Sequence[Response], batch: PackedBatch
) -> list[_Found]:
    """Return what the verifier of mathematical answers found in the responses at some places."""
    scores = ctx.config.scores
    checked = check_all(
        [responses[place].response for place in places],
        [responses[place].solutions for place in places],
        progress=ctx.progress,
        budget_s=seconds_for(len(places), ctx.config.call_timeout_s),
        leniency=scores.leniency,
        form=scores.answer_form,
        ended=[bool(batch["ended"][place]) for place in places],
    )
    found: list[_Found] = []
    for each in checked:
        share = float(each.verdict is Verdict.CORRECT)
        found.append(_Found(each.verdict, each.answer, share))
    return found


def _by_gym(
    ctx: CallContext[PolicyConfig], places: Sequence[int], responses: Sequence[Response], batch: PackedBatch
) -> list[_Found]:
    """Return what the scorers of the rows' tasks found in the responses at some places."""
    texts: list[str] = []
    items: list[GymItem] = []
    for place in places:
        texts.append(responses[place].response)
        row = batch.samples[place].row
        items.append(ctx.dataset.gym(row))
    budget_s = seconds_for(len(texts), ctx.config.call_timeout_s)
    scored = score_all(
        items,
        texts,
        progress=ctx.progress,
        budget_s=budget_s,
    )
    found: list[_Found] = []
    for each, text in zip(scored, texts, strict=True):
        answer = answer_of(text) or None
        found.append(_Found(each.verdict, answer, each.score))
    return found


def _by_form(
    ctx: CallContext[PolicyConfig], places: Sequence[int], responses: Sequence[Response], batch: PackedBatch
) -> list[float | None]:
    """Return 1 for a response that has the form of `scores.form`, right or wrong, and 0 for another."""
    form = ctx.config.scores.answer_form
    found: list[float | None] = []
    for place in places:
        ended = bool(batch["ended"][place])
        found.append(float(follows(responses[place].response, form, ended=ended)))
    return found


def _add_verdicts(config: PolicyConfig, graded: Graded, name: str, found: Sequence[_Found]) -> None:
    """Note verdicts, and the rewards that follow from them."""
    graded.add_verdicts(name, found)
    graded.add(name, [score(config.scores, each.verdict, each.share) for each in found])


def _ask_about_samples(
    ctx: CallContext[PolicyConfig], graded: Graded, samples: Sequence[RewardSample]
) -> None:
    """Note the rewards by the judge and by functions of a user's own."""
    for name in graded.weights:
        asked = [samples[place] for place in graded.places(name)]
        if name == JUDGE:
            _ask_judge(ctx, graded, asked)
        elif name not in BUILT_IN:
            graded.add(name, rewards_by(name, asked, ctx.progress))


def _ask_judge(ctx: CallContext[PolicyConfig], graded: Graded, asked: Sequence[RewardSample]) -> None:
    """Note the rewards by the judge, and the shares of responses without one."""
    judge = ctx.config.judge
    assert judge is not None, "the reward `judge` has its section"
    judged = judge_all(judge, asked, _folder_of_answers(ctx.config), ctx.progress)
    graded.add(JUDGE, judged.rewards)
    num_without = judged.rewards.count(None)
    num_failed = sum(judged.failed)
    graded.metrics["judge_failed"] = Mean(num_failed, len(asked))
    graded.metrics["judge_unscored"] = Mean(num_without - num_failed, len(asked))


def _folder_of_answers(config: PolicyConfig) -> Path | None:
    """Return where a judge's answers are kept; None if they are not."""
    judge = config.judge
    assert judge is not None, "the reward `judge` has its section"
    if judge.cache is None:
        return Path(config.runs_dir, config.experiment, config.trial, "judge")
    return Path(judge.cache).expanduser() if judge.cache else None
