"""The reward of a response: by the verifier, by functions, by its length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from realrl.algorithms.normalise import differs_in_group
from realrl.algorithms.scores import overlong_penalty, shaped
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, CallOutput
from realrl.recipes.ppo_config import PPOMathConfig, ScoreConfig
from realrl.recipes.ppo_report import group_metrics, mean_of, response_metrics, verdict_metrics
from realrl.rewards.functions import GYM, MATH, MODEL, rewards_by, weights_of
from realrl.rewards.gym import score_all
from realrl.rewards.math import grade_all
from realrl.rewards.verdict import Verdict


def reward(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    """Rewards each response; in an evaluation, without what `scores` adds and takes off."""
    config = ctx.config
    responses = responses_of(ctx, batch)
    verdicts, parts, is_graded = _parts(ctx, responses, batch)
    rewards = sum(weight * parts[name] for name, weight in weights_of(config.reward).items())
    teaches = _teaches(ctx, rewards, is_graded, batch)
    if not ctx.evaluating:
        rewards = _shaped(config, rewards, batch)
    metrics = {"reward": mean_of(rewards), **response_metrics(batch)}
    if len(parts) > 1:
        metrics |= {f"reward/{name.rpartition(':')[2]}": mean_of(part) for name, part in parts.items()}
    if verdicts is not None:
        metrics |= verdict_metrics(verdicts, batch, evaluating=ctx.evaluating)
        if not ctx.evaluating:
            metrics |= group_metrics(groups_of(config, batch), verdicts, config.batch_size, ctx.reduce)
    if config.ppo.max_draws > 1 and not ctx.evaluating:
        metrics |= {"redrawn": mean_of(~teaches)}
    graded = batch.with_keys(per_sample={"rewards": rewards, "is_graded": is_graded & teaches})
    rejected = tuple(s.id for s, stays in zip(batch.samples, teaches.tolist()) if not stays)
    return CallOutput(graded, metrics, _records(responses, rewards, verdicts), rejected)


def _teaches(ctx: CallContext, rewards: Tensor, is_graded: Tensor, batch: PackedBatch) -> Tensor:
    """Bool `[B]`: where prompts are drawn again, whether rewards differ among the prompt's responses."""
    config = ctx.config
    if config.ppo.max_draws == 1 or ctx.evaluating:
        return torch.ones_like(is_graded)
    groups = groups_of(config, batch)
    return differs_in_group(rewards, groups, config.batch_size, ctx.reduce, counts=is_graded)


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


def _parts(
    ctx: CallContext, responses: Sequence[Response], batch: PackedBatch
) -> tuple[list[Verdict] | None, dict[str, Tensor], Tensor]:
    """The verdicts if there are any, each reward `[B]` by name, and who takes part in the step."""
    verdicts, parts, scores = None, {}, ctx.config.scores
    is_graded = torch.ones(len(responses), dtype=torch.bool)
    prompts, texts, solutions = zip(*responses) if responses else ((), (), ())
    for name in weights_of(ctx.config.reward):
        if name == MATH:
            verdicts = grade_all(texts, solutions)
            shares, ended = [v is Verdict.CORRECT for v in verdicts], batch["ended"].tolist()
            parts[name], is_graded = _scored(scores, verdicts, shares, ended)
        elif name == GYM:
            found = score_all([ctx.dataset.gym(sample.row) for sample in batch.samples], texts)
            verdicts, shares = [f.verdict for f in found], [f.score for f in found]
            parts[name], is_graded = _scored(scores, verdicts, shares, batch["ended"].tolist())
        elif name == MODEL:
            parts[name] = batch["scores"]
        else:
            parts[name] = torch.tensor(rewards_by(name, prompts, texts, solutions))
    return verdicts, parts, is_graded


def _records(
    responses: Sequence[Response], rewards: Tensor, verdicts: Sequence[Verdict] | None
) -> list[dict[str, Any]]:
    records = [{**r._asdict(), "reward": x} for r, x in zip(responses, rewards.tolist())]
    if verdicts is not None:
        records = [{**record, "verdict": v.value} for record, v in zip(records, verdicts)]
    return records


def _scored(
    scores: ScoreConfig, verdicts: Sequence[Verdict], shares: Sequence[float], ended: Sequence[bool]
) -> tuple[Tensor, Tensor]:
    """Each response's reward by its verdict and its share of what a right one gets, and whether it takes part
    in the step; both `[B]`."""
    found = [
        _score(scores, verdict, share) if has_ended or scores.truncated != "wrong" else scores.wrong
        for verdict, share, has_ended in zip(verdicts, shares, ended)
    ]
    rewards = torch.tensor([0.0 if score is None else score for score in found])
    return rewards, torch.tensor([score is not None for score in found], dtype=torch.bool)


def _score(scores: ScoreConfig, verdict: Verdict, share: float) -> float | None:
    if verdict in (Verdict.TIMEOUT, Verdict.ERROR):
        return scores.ungraded
    return scores.wrong + share * (scores.correct - scores.wrong)


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
