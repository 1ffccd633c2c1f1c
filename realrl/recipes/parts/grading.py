"""The call `reward`: rewards of responses, their reports and records, and which prompts are resampled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from realrl.algorithms.normalise import differs_in_group
from realrl.algorithms.scores import overlong_penalty, shaped
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, CallOutput, Mean
from realrl.recipes.parts.checks import Graded, Response, grade, summed, truncated_as_wrong
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.report import group_metrics, mean_of, response_metrics, verdict_metrics
from realrl.recipes.parts.sample_records import place_of, token_texts, with_tokens
from realrl.rewards.functions import LARGEST_REWARD, is_usable


def reward(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Reward each response; in an evaluation, without what `scores` adds and takes off.

    Raises:
        RuntimeError: a reward is not finite, or too large.
    """
    config = ctx.config
    responses = responses_of(ctx, batch)
    graded = truncated_as_wrong(config, grade(ctx, responses, batch), batch)
    rewards = summed(config, graded, batch)
    teaches = _teaches(ctx, rewards, graded.is_graded, batch)
    if not ctx.evaluating:
        rewards = _shaped(config, rewards, batch)
    _check_finite(rewards, responses)
    metrics = _metrics(ctx, batch, responses, graded, rewards)
    if config.ppo.max_draws > 1 and not ctx.evaluating:
        metrics["redrawn"] = mean_of(~teaches)
    is_graded = graded.is_graded & teaches
    drawn = zip(batch.samples, teaches.tolist())
    rejected = [sample.id for sample, stays in drawn if not stays]
    return CallOutput(
        batch.with_keys(per_sample={"rewards": rewards, "is_graded": is_graded}),
        metrics,
        _records(ctx, responses, rewards, graded, batch),
        tuple(rejected),
    )


def takes_part(config: PolicyConfig, is_graded: Tensor, ended: Tensor) -> Tensor:
    """Return whether a sample is trained on and counts in its group: bool `[B]`."""
    return is_graded & (ended | (config.scores.truncated != "left_out"))


def _metrics(
    ctx: CallContext[PolicyConfig],
    batch: PackedBatch,
    responses: Sequence[Response],
    graded: Graded,
    rewards: Tensor,
) -> dict[str, Mean]:
    """Return what a step, or an evaluation, reports of its responses."""
    config = ctx.config
    verdicts = graded.verdicts
    texts = [response.response for response in responses]
    metrics = {"reward": mean_of(rewards[graded.is_graded])}
    metrics |= _part_metrics(graded)
    metrics |= response_metrics(batch, texts)
    if verdicts is not None:
        metrics |= verdict_metrics(verdicts, batch, evaluating=ctx.evaluating)
    if ctx.evaluating:
        return metrics
    if verdicts is not None:
        groups = groups_of(config, batch)
        metrics |= group_metrics(groups, verdicts, config.batch_size, ctx.reduce)
    if config.ppo.group_size > 1:
        metrics["groups_equal"] = _groups_equal(ctx, rewards, batch)
    return metrics


def _teaches(
    ctx: CallContext[PolicyConfig], rewards: Tensor, is_graded: Tensor, batch: PackedBatch
) -> Tensor:
    """Return whether rewards differ among those of the prompt's responses that take part: bool `[B]`.

    Where prompts are not resampled, all of them count as teaching.
    """
    config = ctx.config
    if config.ppo.max_draws == 1 or ctx.evaluating:
        return torch.ones_like(is_graded)
    groups = groups_of(config, batch)
    counts = takes_part(config, is_graded, batch["ended"])
    return differs_in_group(rewards, groups, config.batch_size, ctx.reduce, counts=counts)


def _groups_equal(ctx: CallContext[PolicyConfig], rewards: Tensor, batch: PackedBatch) -> Mean:
    """Return the share of samples whose prompt's responses all have one reward: they teach nothing."""
    differs = differs_in_group(
        rewards,
        groups_of(ctx.config, batch),
        ctx.config.batch_size,
        ctx.reduce,
    )
    return mean_of(~differs)


def responses_of(ctx: CallContext, batch: PackedBatch) -> list[Response]:
    """Return each sample of a batch as text."""
    ids = batch.unpacked("input_ids")
    masks = batch.unpacked("loss_mask")
    responses: list[Response] = []
    for place, sample in enumerate(batch.samples):
        prompt = ctx.dataset.prompt(sample.row)
        response_ids = ids[place][masks[place]]
        text = ctx.tokenizer.decode(response_ids, skip_special_tokens=True)
        solutions = ctx.dataset.solutions(sample.row)
        responses.append(Response(prompt, text, solutions))
    return responses


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
    """Return the mean of each reward where there are several, and the share of responses without one."""
    metrics = {"ungraded": mean_of(~graded.is_graded)}
    if len(graded.parts) == 1:
        return metrics
    for name, part in graded.parts.items():
        short_name = name.rpartition(":")[2]
        metrics[f"reward/{short_name}"] = mean_of(part[graded.has_part[name]])
    return metrics


def _records(
    ctx: CallContext[PolicyConfig],
    responses: Sequence[Response],
    rewards: Tensor,
    graded: Graded,
    batch: PackedBatch,
) -> list[dict[str, Any]]:
    """Return what is written of each response; an ungraded one has no reward."""
    is_graded = graded.is_graded.tolist()
    ended = batch["ended"].tolist()
    records = _places(ctx, batch)
    values = rewards.tolist()
    for place, record in enumerate(records):
        record |= responses[place]._asdict()
        record["reward"] = values[place] if is_graded[place] else None
        record["ended"] = ended[place]
        if graded.verdicts is not None:
            record["verdict"] = graded.verdicts[place].value
            record["answer"] = graded.answers[place]
    return records


def _places(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> list[dict[str, Any]]:
    """Return each sample's place in its step and the length of its response, and of some its tokens."""
    group_size = 1
    batch_samples = sys.maxsize
    if not ctx.evaluating:
        group_size = ctx.config.ppo.group_size
        batch_samples = ctx.config.batch_size * group_size
    ids = batch.unpacked("input_ids")
    masks = batch.unpacked("loss_mask")
    places: list[dict[str, Any]] = []
    for sample, its_ids, mask in zip(batch.samples, ids, masks):
        place: dict[str, Any] = dict(place_of(sample, group_size))
        place["num_tokens"] = int(mask.sum())
        if with_tokens(sample, batch_samples):
            place["tokens"] = token_texts(ctx.tokenizer, its_ids[mask])
        places.append(place)
    return places


def _shaped(config: PolicyConfig, rewards: Tensor, batch: PackedBatch) -> Tensor:
    """Return the rewards as training sees them, with what their length costs."""
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


def groups_of(config: PolicyConfig, batch: PackedBatch) -> Tensor:
    """Return the number of each sample's prompt within the step's batch: int64 `[B]`."""
    groups = [sample.id // config.ppo.group_size for sample in batch.samples]
    return torch.tensor(groups, dtype=torch.long)


def response_lengths(batch: PackedBatch) -> Tensor:
    """Return the response tokens of each sample: int64 `[B]`."""
    lengths = [int(part.sum()) for part in batch.unpacked("loss_mask")]
    return torch.tensor(lengths, dtype=torch.long)
