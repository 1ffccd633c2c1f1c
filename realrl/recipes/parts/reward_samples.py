"""Responses as reward functions see them: with their row, their tokens and their group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from realrl.api.batch import PackedBatch, Sample
from realrl.api.recipe import CallContext
from realrl.recipes.parts.checks import Response
from realrl.recipes.parts.config import PolicyConfig
from realrl.rewards.samples import RewardSample, Turn
from realrl.rewards.verdict import Verdict


def sources_of(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> list[str]:
    """Return the source of each sample's row; empty for all where the data has no sets."""
    if not ctx.config.data.sets:
        return [""] * len(batch)
    return [ctx.dataset.source(sample.row) for sample in batch.samples]


def weights_by_name(config: PolicyConfig, sources: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the weight that each reward has for each sample, by the source of its row: float64 `[B]`.

    A reward that a source does not have weighs NaN there.
    """
    by_source = {source: config.weights_for(source) for source in set(sources)}
    found: dict[str, torch.Tensor] = {}
    for name in config.reward_names:
        weights = [by_source[source].get(name, float("nan")) for source in sources]
        found[name] = torch.tensor(weights, dtype=torch.double)
    return found


def reward_samples(
    ctx: CallContext[PolicyConfig],
    responses: Sequence[Response],
    verdicts: Sequence[Verdict | None] | None,
    batch: PackedBatch,
) -> list[RewardSample]:
    """Return all that is known of each response.

    A group has those of its responses that this rank has: all of them, if the call asks for whole rows.
    """
    ids = batch.unpacked("input_ids")
    masks = batch.unpacked("loss_mask")
    ended = batch["ended"].tolist()
    groups: dict[int, list[RewardSample]] = defaultdict(list)
    found: list[RewardSample] = []
    for place, sample in enumerate(batch.samples):
        response = responses[place]
        tokens = ids[place][masks[place]]
        group = groups[_group_of(ctx, sample)]
        known = RewardSample(
            prompt=response.prompt,
            response=response.response,
            solutions=response.solutions,
            source=ctx.dataset.source(sample.row),
            metadata=ctx.dataset.metadata(sample.row),
            tokens=tokens,
            ended=ended[place],
            turns=(Turn(text=response.response, tokens=tokens),),
            verdict=None if verdicts is None else verdicts[place],
            group=group,
            evaluating=ctx.evaluating,
        )
        # The list is that of the whole group: it is complete when the last of them is in it.
        group.append(known)
        found.append(known)
    return found


def _group_of(ctx: CallContext[PolicyConfig], sample: Sample) -> int:
    """Return what the samples of a prompt have in common; a step may have a row twice."""
    return sample.row if ctx.evaluating else sample.id // ctx.config.ppo.group_size
