"""The optimizer steps that a train call makes of one batch, whatever its loss.

batch ──▶ mini-batches ──▶ weights of tokens ──▶ engine: micro-batches, each through the loss ──▶ one step
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from realrl.algorithms.aggregate import token_weights
from realrl.algorithms.choices import Aggregation
from realrl.algorithms.learning_rate import learning_rate
from realrl.api.batch import PackedBatch
from realrl.api.config import OptimizerConfig
from realrl.api.recipe import CallContext, Mean, Metrics
from realrl.recipes.parts.checks import groups_of
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.estimates import chosen


class Step(NamedTuple):
    """One optimizer step to make."""

    minibatch: PackedBatch
    """This rank's part of it, with what each token counts in the loss: `weights`."""
    num_tokens: float
    """Response tokens of the mini-batch on all ranks."""
    lr: float


def steps(
    ctx: CallContext[AdvantageConfig],
    batch: PackedBatch,
    optimizer: OptimizerConfig,
    num: int,
    aggregation: Aggregation,
) -> Iterator[Step]:
    """Yield the steps on the samples of a batch that take part, mini-batch by mini-batch.

    A mini-batch without a response token, on all ranks, takes none.

    Collective: over the ranks of `ctx.reduce`.
    """
    config = ctx.config
    taken = chosen(config, batch)
    for index, minibatch in enumerate(minibatches(config, taken, num)):
        num_tokens = float(ctx.reduce(minibatch["loss_mask"].sum()))
        if not num_tokens:
            continue
        weights = token_weights(
            minibatch["loss_mask"],
            minibatch.cu_seqlens,
            ctx.reduce,
            aggregation=aggregation,
            max_new_tokens=config.generation.max_new_tokens,
            groups=groups_of(config, minibatch),
            num_groups=config.batch_size,
        )
        lr = learning_rate(
            optimizer,
            ctx.step * num + index,
            config.num_steps * num,
        )
        yield Step(minibatch.with_keys(tokens={"weights": weights}), num_tokens, lr)


def minibatches(config: AdvantageConfig, batch: PackedBatch, num: int) -> list[PackedBatch]:
    """Return this rank's part of each mini-batch; which sample goes where does not depend on the plan."""
    total = config.batch_size * config.ppo.group_size
    places: list[list[int]] = [[] for _ in range(num)]
    for place, sample in enumerate(batch.samples):
        number = sample.id * num // total
        places[number].append(place)
    parts = []
    for its_places in places:
        part = batch.select(its_places)
        parts.append(part)
    return parts


def num_updates_of(found: Metrics) -> float:
    """Return 1 if the optimizer's step was made, and 0 if it was skipped."""
    skipped = found["skipped_updates"]
    assert isinstance(skipped, Mean), "an engine says of one step whether it was skipped"
    return float(not skipped.total)
