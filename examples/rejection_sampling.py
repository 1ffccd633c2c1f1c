"""Rejection sampling: learn by imitation from one's own right answers (Yuan et al. 2023, arXiv:2308.01825).

actor_gen ──▶ reward ──▶ actor_train

The recipe `raft` is the same with more choices; this file shows how short a recipe of one's own can be.

realrl examples/rejection_sampling.py:REJECTION_SAMPLING actor.model.path=MODEL data.path=problems.jsonl
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from realrl.algorithms.learning_rate import learning_rate
from realrl.api.batch import PackedBatch
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Mean, Metrics
from realrl.recipes.parts import calls
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.report import share_of


@dataclass(frozen=True, kw_only=True)
class RejectionSamplingConfig(PolicyConfig):
    """Learn by imitation from one's own right answers (Yuan et al. 2023, arXiv:2308.01825)."""

    experiment: str = "rejection-sampling"
    least_reward: float = 1.0
    """The reward from which a response is learned."""


def graph(config: RejectionSamplingConfig) -> DataflowGraph:
    """Return one training step: answers are sampled and graded as in every recipe, then learned."""
    return calls.step(config, Call("actor_train", "actor", CallKind.TRAIN, (*calls.TRAINED, "rewards")))


def actor_train(ctx: CallContext[RejectionSamplingConfig], batch: PackedBatch) -> CallOutput:
    """Make a step on the mean of minus the log-probability over the tokens of right, whole responses."""
    config = ctx.config
    is_good = batch["is_graded"] & batch["ended"] & (batch["rewards"] >= config.least_reward)
    accepted = batch.select(is_good.nonzero()[:, 0].tolist())
    metrics: Metrics = {"accepted": Mean(len(accepted), len(batch))}
    num_tokens = float(ctx.reduce(accepted["loss_mask"].sum()))
    if not num_tokens:
        return CallOutput(metrics=metrics)

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        total = -logprobs.sum() / num_tokens
        return total, {"loss": share_of(total, num_tokens, micro)}

    lr = learning_rate(config.actor.optimizer, ctx.step, config.num_steps)
    found = ctx.engine.train_logprobs(accepted, loss, lr=lr, temperature=1.0)
    return CallOutput(metrics={**metrics, **found})


REJECTION_SAMPLING = policy_recipe(
    "rejection-sampling",
    RejectionSamplingConfig(),
    graph=graph,
    models=calls.models,
    bodies={"actor_train": actor_train},
)
