"""Bodies of the calls that make and measure rollouts: they generate, or take log-probabilities and values."""

from __future__ import annotations

from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, CallOutput
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.data import ends_by, stopping
from realrl.recipes.parts.pairs import scores_at_ends


def generate(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Sample a response to each prompt; in an evaluation, take the most likely tokens."""
    config = stopping(
        ctx.config.generation,
        ctx.tokenizer,
        ctx.config.data.template,
    )
    if ctx.evaluating:
        config = config.greedy()
    ends = ends_by(config, ctx.tokenizer)
    found = ctx.engine.generate(
        batch, config, seed=ctx.config.seed, step=ctx.step, ends=ends, preemption=ctx.preemption
    )
    return CallOutput(found)


def take_scores(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the reward model's score of each response: its value at the end."""
    values = ctx.engine.values(batch)
    if values is None:
        return CallOutput()
    return CallOutput(batch.with_keys(per_sample={"scores": scores_at_ends(values, batch)}))


def take_logprobs(ctx: CallContext[PolicyConfig], batch: PackedBatch, key: str) -> CallOutput:
    """Take a model's log-probabilities at the training temperature, as `key`."""
    found = ctx.engine.logprobs(batch, temperature=ctx.config.generation.training_temperature)
    if found is None:
        return CallOutput()
    return CallOutput(batch.with_keys(tokens={key: found}))


def take_values(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> CallOutput:
    """Take the critic's value of the state after each token."""
    values = ctx.engine.values(batch)
    if values is None:
        return CallOutput()
    return CallOutput(batch.with_keys(tokens={"values": values}))
