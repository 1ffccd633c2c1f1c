"""The reward of a response: by the verifier, by functions, by its length."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from realrl.algorithms.normalise import differs_in_group
from realrl.algorithms.scores import overlong_penalty, shaped
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, CallOutput, Mean
from realrl.recipes.ppo_config import PPOMathConfig, ScoreConfig
from realrl.recipes.ppo_report import group_metrics, mean_of, response_metrics, verdict_metrics
from realrl.recipes.sample_records import place_of, token_texts, with_tokens
from realrl.rewards.budget import seconds_for
from realrl.rewards.functions import (
    GYM,
    LARGEST_REWARD,
    MATH,
    MODEL,
    is_usable,
    rewards_by,
    weights_of,
)
from realrl.rewards.gym import answer_of, score_all
from realrl.rewards.math import check_all
from realrl.rewards.verdict import Verdict


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
        return torch.stack(counting or [torch.ones_like(x) for x in self.has_part.values()]).all(dim=0)


def reward(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    """Rewards each response; in an evaluation, without what `scores` adds and takes off."""
    config = ctx.config
    responses = responses_of(ctx, batch)
    graded = _truncated_as_wrong(config, _grade(ctx, responses, batch), batch)
    rewards, is_graded = _summed(config, graded, batch), graded.is_graded
    teaches = _teaches(ctx, rewards, is_graded, batch)
    if not ctx.evaluating:
        rewards = _shaped(config, rewards, batch)
    _check_finite(rewards, responses)
    texts = [response.response for response in responses]
    metrics = {"reward": mean_of(rewards[is_graded]), **_part_metrics(graded)}
    metrics |= response_metrics(batch, texts)
    if graded.verdicts is not None:
        metrics |= verdict_metrics(graded.verdicts, batch, evaluating=ctx.evaluating)
        if not ctx.evaluating:
            groups = groups_of(config, batch)
            metrics |= group_metrics(groups, graded.verdicts, config.batch_size, ctx.reduce)
    if config.ppo.group_size > 1 and not ctx.evaluating:
        metrics |= {"groups_equal": _groups_equal(ctx, rewards, batch)}
    if config.ppo.max_draws > 1 and not ctx.evaluating:
        metrics |= {"redrawn": mean_of(~teaches)}
    outputs = batch.with_keys(per_sample={"rewards": rewards, "is_graded": is_graded & teaches})
    rejected = tuple(s.id for s, stays in zip(batch.samples, teaches.tolist()) if not stays)
    return CallOutput(outputs, metrics, _records(ctx, responses, rewards, graded, batch), rejected)


def takes_part(config: PPOMathConfig, is_graded: Tensor, ended: Tensor) -> Tensor:
    """Bool `[B]`: whether a sample is trained on and counts in its group."""
    return is_graded & (ended | (config.scores.truncated != "left_out"))


def _teaches(ctx: CallContext, rewards: Tensor, is_graded: Tensor, batch: PackedBatch) -> Tensor:
    """Bool `[B]`: where prompts are drawn again, whether rewards differ among the prompt's responses that
    take part."""
    config = ctx.config
    if config.ppo.max_draws == 1 or ctx.evaluating:
        return torch.ones_like(is_graded)
    groups, counts = groups_of(config, batch), takes_part(config, is_graded, batch["ended"])
    return differs_in_group(rewards, groups, config.batch_size, ctx.reduce, counts=counts)


def _groups_equal(ctx: CallContext, rewards: Tensor, batch: PackedBatch) -> Mean:
    """The share of samples whose prompt's responses all have one reward: they teach nothing."""
    groups, everyone = groups_of(ctx.config, batch), torch.ones(len(batch), dtype=torch.bool)
    differs = differs_in_group(rewards, groups, ctx.config.batch_size, ctx.reduce, counts=everyone)
    return mean_of(~differs)


class Response(NamedTuple):
    """A sample as text."""

    prompt: str
    response: str
    solutions: Sequence[str]


def responses_of(ctx: CallContext, batch: PackedBatch) -> list[Response]:
    masked = zip(batch.samples, batch.unpacked("input_ids"), batch.unpacked("loss_mask"))
    return [
        Response(
            ctx.dataset.prompt(sample.row),
            ctx.tokenizer.decode(ids[mask], skip_special_tokens=True),
            ctx.dataset.solutions(sample.row),
        )
        for sample, ids, mask in masked
    ]


def _grade(ctx: CallContext, responses: Sequence[Response], batch: PackedBatch) -> Graded:
    """Ask each reward about each response."""
    scores, weights = ctx.config.scores, weights_of(ctx.config.reward)
    verdicts: list[Verdict] | None = None
    answers: list[str | None] = []
    found: dict[str, list[float | None]] = {}
    prompts, texts, solutions = zip(*responses) if responses else ((), (), ())
    budget_s = seconds_for(len(texts), ctx.config.call_timeout_s)
    for name in weights:
        if name == MATH:
            converts = ctx.config.scores.convert_units
            checked = check_all(
                texts, solutions, progress=ctx.progress, budget_s=budget_s, convert_units=converts
            )
            verdicts, answers = [c.verdict for c in checked], [c.answer for c in checked]
            found[name] = [_score(scores, v, v is Verdict.CORRECT) for v in verdicts]
        elif name == GYM:
            items = [ctx.dataset.gym(sample.row) for sample in batch.samples]
            scored = score_all(items, texts, progress=ctx.progress, budget_s=budget_s)
            verdicts, answers = [s.verdict for s in scored], [answer_of(text) or None for text in texts]
            found[name] = [_score(scores, s.verdict, s.score) for s in scored]
        elif name == MODEL:
            found[name] = batch["scores"].tolist()
        else:
            found[name] = rewards_by(name, prompts, texts, solutions, ctx.progress)
    parts = {name: torch.tensor([0.0 if x is None else x for x in given]) for name, given in found.items()}
    has_part = {
        name: torch.tensor([x is not None for x in given], dtype=torch.bool) for name, given in found.items()
    }
    return Graded(verdicts, answers, parts, has_part, weights)


def _score(scores: ScoreConfig, verdict: Verdict, share: float) -> float | None:
    """The reward of a response with this verdict and this share of a right answer; None: it has none."""
    if verdict in (Verdict.TIMEOUT, Verdict.ERROR):
        return scores.ungraded
    return scores.wrong + share * (scores.correct - scores.wrong)


def _truncated_as_wrong(config: PPOMathConfig, graded: Graded, batch: PackedBatch) -> Graded:
    """With `scores.truncated: wrong`, say of truncated responses what is said of wrong ones."""
    if config.scores.truncated != "wrong":
        return graded
    ended, verdicts, parts = batch["ended"], graded.verdicts, dict(graded.parts)
    for name in {MATH, GYM} & parts.keys():
        parts[name] = torch.where(ended, parts[name], config.scores.wrong)
    if verdicts is not None:
        is_right_but_cut = [v is Verdict.CORRECT and not e for v, e in zip(verdicts, ended.tolist())]
        verdicts = [Verdict.WRONG if cut else v for v, cut in zip(verdicts, is_right_but_cut)]
    # Whatever its check says, what a truncated response is worth is known.
    has_part = {name: has | ~ended for name, has in graded.has_part.items()}
    return Graded(verdicts, graded.answers, parts, has_part, graded.weights)


def _summed(config: PPOMathConfig, graded: Graded, batch: PackedBatch) -> Tensor:
    """The weighted sum of the rewards, `[B]`; of a truncated response, where that counts as wrong, no more
    than a wrong one gets from the verifier."""
    rewards = sum(weight * graded.parts[name] for name, weight in graded.weights.items())
    if config.scores.truncated != "wrong":
        return rewards
    by_verifier = next((weight for name, weight in graded.weights.items() if name in (MATH, GYM)), 1.0)
    return torch.where(batch["ended"], rewards, rewards.clamp(max=by_verifier * config.scores.wrong))


def _check_finite(rewards: Tensor, responses: Sequence[Response]) -> None:
    """Raise RuntimeError for a reward that is no number, or too large for float32."""
    for value, response in zip(rewards.tolist(), responses):
        if not is_usable(value):
            raise RuntimeError(
                f"reward: the weighted sum is {value} after scores.bias and scores.scale, expected a number"
                f" from {-LARGEST_REWARD:g} to {LARGEST_REWARD:g}; lower the weights or the scale, or look at"
                f" the reward model's scores; the response was {response.response[:200]!r}"
            )


def _part_metrics(graded: Graded) -> dict[str, Mean]:
    """The mean of each reward where there are several, and the share of responses without one."""
    metrics = {"ungraded": mean_of(~graded.is_graded)}
    if len(graded.parts) > 1:
        metrics |= {
            f"reward/{name.rpartition(':')[2]}": mean_of(part[graded.has_part[name]])
            for name, part in graded.parts.items()
        }
    return metrics


def _records(
    ctx: CallContext, responses: Sequence[Response], rewards: Tensor, graded: Graded, batch: PackedBatch
) -> list[dict[str, Any]]:
    """What is written of each response; an ungraded one has no reward."""
    places = _places(ctx, batch)
    columns = zip(places, responses, rewards.tolist(), graded.is_graded.tolist(), batch["ended"].tolist())
    records = [
        {**place, **response._asdict(), "reward": value if is_graded else None, "ended": ended}
        for place, response, value, is_graded, ended in columns
    ]
    if graded.verdicts is not None:
        checked = zip(records, graded.verdicts, graded.answers)
        records = [{**record, "verdict": v.value, "answer": answer} for record, v, answer in checked]
    return records


def _places(ctx: CallContext, batch: PackedBatch) -> list[dict[str, Any]]:
    """Where each sample is in its step, how long its response is, and of some the response's tokens."""
    group_size = 1 if ctx.evaluating else ctx.config.ppo.group_size
    batch_samples = sys.maxsize if ctx.evaluating else ctx.config.batch_size * group_size
    places = []
    for sample, ids, mask in zip(batch.samples, batch.unpacked("input_ids"), batch.unpacked("loss_mask")):
        place: dict[str, Any] = {**place_of(sample, group_size), "num_tokens": int(mask.sum())}
        if with_tokens(sample, batch_samples):
            place["tokens"] = token_texts(ctx.tokenizer, ids[mask])
        places.append(place)
    return places


def _shaped(config: PPOMathConfig, rewards: Tensor, batch: PackedBatch) -> Tensor:
    scores = config.scores
    rewards = shaped(rewards, bias=scores.bias, scale=scores.scale, clip=scores.clip)
    if not scores.overlong_tokens:
        return rewards
    return rewards + overlong_penalty(
        response_lengths(batch),
        max_tokens=config.generation.max_new_tokens,
        buffer_tokens=scores.overlong_tokens,
        penalty=scores.overlong_penalty,
    )


def groups_of(config: PPOMathConfig, batch: PackedBatch) -> Tensor:
    """The number of each sample's prompt within the step's batch: int64 `[B]`."""
    return torch.tensor([s.id // config.ppo.group_size for s in batch.samples], dtype=torch.long)


def response_lengths(batch: PackedBatch) -> Tensor:
    """Response tokens of each sample: int64 `[B]`."""
    return torch.tensor([int(part.sum()) for part in batch.unpacked("loss_mask")], dtype=torch.long)
