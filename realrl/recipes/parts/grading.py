"""The call `reward`: rewards of responses, their reports and records, and which prompts are resampled.

responses ──▶ verifier | task's scorer | reward model | judge | functions ──▶ Graded ──▶ rewards [B]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from realrl import algorithms
from realrl.api.recipe import CallContext, CallOutput, Mean
from realrl.recipes import parts
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.reward_names import OVERLONG, part_keys, part_names
from realrl.rewards.functions import LARGEST_REWARD, is_usable
from realrl.rewards.verdict import Verdict

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch
    from realrl.recipes.parts.checks import Graded, Response


def reward(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Reward each response; in an evaluation, without what `scores` adds and takes off.

    Raises:
        RuntimeError: a reward is not finite, or too large.
    """
    config, scores = ctx.config, ctx.config.scores
    responses = responses_of(ctx, batch)
    graded = parts.checks.truncated_as_wrong(config, parts.graders.grade(ctx, responses, batch), batch)

    rewards = graded.total
    if scores.truncated == "wrong":
        # Whatever functions say, a truncated response has no more than a wrong one gets from the verifier.
        of_wrong = (graded.verdict_weight * scores.wrong).to(rewards.dtype)
        rewards = rewards.where(batch["ended"], rewards.minimum(of_wrong))
    teaches = _teaches(ctx, rewards, graded.is_graded, batch)

    if not ctx.evaluating:
        rewards = algorithms.scores.shaped(rewards, bias=scores.bias, scale=scores.scale, clip=scores.clip)
    if scores.overlong_tokens and not ctx.evaluating:
        rewards = rewards + _overlong_penalties(config, batch)
    _check_finite(rewards, responses)

    drawn = zip(batch.samples, teaches.tolist())
    rejected = [sample.id for sample, stays in drawn if not stays]
    kept = {"rewards": rewards, "is_graded": graded.is_graded & teaches}
    return CallOutput(
        batch.with_keys(per_sample={**kept, **_parts_of(ctx, graded, batch)}),
        _metrics(ctx, batch, responses, graded, rewards, teaches),
        _records(ctx, responses, rewards, graded, batch),
        tuple(rejected),
    )


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
        responses.append(parts.checks.Response(prompt, text, solutions))
    return responses


def _overlong_penalties(config: PolicyConfig, batch: PackedBatch) -> Tensor:
    """Return what responses near the length limit lose: `[B]`, 0 or less."""
    return algorithms.scores.overlong_penalty(
        parts.checks.response_lengths(batch),
        max_tokens=config.generation.max_new_tokens,
        buffer_tokens=config.scores.overlong_tokens,
        penalty=config.scores.overlong_penalty,
    )


def _parts_of(ctx: CallContext[PolicyConfig], graded: Graded, batch: PackedBatch) -> dict[str, Tensor]:
    """Return the rewards that the estimator sees one by one, by key: `[B]` each."""
    config = ctx.config
    found: dict[str, Tensor] = {}
    for name, key in zip(part_names(config), part_keys(config), strict=True):
        found[key] = _overlong_penalties(config, batch) if name == OVERLONG else graded.parts[name]
    return found


def _metrics(
    ctx: CallContext[PolicyConfig],
    batch: PackedBatch,
    responses: Sequence[Response],
    graded: Graded,
    rewards: Tensor,
    teaches: Tensor,
) -> dict[str, Mean]:
    """Return what a step, or an evaluation, reports of its responses."""
    config = ctx.config
    verdicts = graded.verdicts
    texts = [response.response for response in responses]
    report = parts.report
    metrics = {"reward": report.mean_of(rewards[graded.is_graded])}
    metrics |= _part_metrics(graded)
    metrics |= report.response_metrics(batch, texts)
    if verdicts is not None:
        metrics |= _verdict_metrics(ctx, verdicts, batch)
    if ctx.evaluating:
        return metrics
    if config.ppo.group_size > 1:
        metrics["groups_equal"] = _groups_equal(ctx, rewards, batch)
    if config.ppo.max_draws > 1:
        metrics["redrawn"] = report.mean_of(~teaches)
    return metrics


def _verdict_metrics(
    ctx: CallContext[PolicyConfig], verdicts: Sequence[Verdict | None], batch: PackedBatch
) -> dict[str, Mean]:
    """Return what a step, or an evaluation, reports of the responses that have a verdict.

    Collective: over the ranks of `ctx.reduce`, in a step.
    """
    report = parts.report
    found = [verdict for verdict in verdicts if verdict is not None]
    if len(found) < len(batch):
        batch = batch.select([place for place, verdict in enumerate(verdicts) if verdict is not None])
    metrics = report.verdict_metrics(found, batch, accuracy=_accuracy_name(ctx))
    if not ctx.evaluating:
        groups = parts.checks.groups_of(ctx.config, batch)
        metrics |= report.group_metrics(groups, found, ctx.config.batch_size, ctx.reduce)
    return metrics


def _accuracy_name(ctx: CallContext[PolicyConfig]) -> str:
    """Return the name of the share of right responses."""
    if not ctx.evaluating:
        return "accuracy"
    own = ctx.config.evals.get(ctx.eval_set)
    return "greedy_accuracy" if own is None or own.is_greedy else f"avg@{own.n}"


def _teaches(
    ctx: CallContext[PolicyConfig], rewards: Tensor, is_graded: Tensor, batch: PackedBatch
) -> Tensor:
    """Return whether rewards differ among those of the prompt's responses that take part: bool `[B]`.

    Where prompts are not resampled, all of them count as teaching.
    """
    config = ctx.config
    if config.ppo.max_draws == 1 or ctx.evaluating:
        return is_graded.new_ones(len(is_graded))
    groups = parts.checks.groups_of(config, batch)
    counts = parts.checks.takes_part(config, is_graded, batch["ended"])
    return algorithms.normalise.differs_in_group(
        rewards, groups, config.batch_size, ctx.reduce, counts=counts
    )


def _groups_equal(ctx: CallContext[PolicyConfig], rewards: Tensor, batch: PackedBatch) -> Mean:
    """Return the share of samples whose prompt's responses all have one reward: they teach nothing."""
    groups = parts.checks.groups_of(ctx.config, batch)
    differs = algorithms.normalise.differs_in_group(rewards, groups, ctx.config.batch_size, ctx.reduce)
    return parts.report.mean_of(~differs)


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
    metrics = {"ungraded": parts.report.mean_of(~graded.is_graded), **graded.metrics}
    if len(graded.parts) == 1:
        return metrics
    for name, part in graded.parts.items():
        short_name = name.rpartition(":")[2]
        metrics[f"reward/{short_name}"] = parts.report.mean_of(part[graded.has_part[name]])
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
        verdict = None if graded.verdicts is None else graded.verdicts[place]
        if verdict is not None:
            record["verdict"] = verdict.value
            record["answer"] = graded.answers[place]
    return records


def _places(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> list[dict[str, Any]]:
    """Return each sample's place in its step and the length of its response, and of some its tokens."""
    group_size = 1
    batch_samples = sys.maxsize
    if ctx.eval_set in ctx.config.evals:
        group_size = ctx.config.evals[ctx.eval_set].n
    elif not ctx.evaluating:
        group_size = ctx.config.ppo.group_size
        batch_samples = ctx.config.batch_size * group_size
    ids = batch.unpacked("input_ids")
    masks = batch.unpacked("loss_mask")
    places: list[dict[str, Any]] = []
    for sample, its_ids, mask in zip(batch.samples, ids, masks):
        place: dict[str, Any] = dict(parts.sample_records.place_of(sample, group_size))
        place["num_tokens"] = int(mask.sum())
        if parts.sample_records.with_tokens(sample, batch_samples):
            place["tokens"] = parts.sample_records.token_texts(ctx.tokenizer, its_ids[mask])
        places.append(place)
    return places
