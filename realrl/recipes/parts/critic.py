"""What a critic adds to a recipe: its values in units of returns, and its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.api.recipe import CallContext, CallOutput, Mean, Metrics, joined
from realrl.recipes import parts
from realrl.recipes.parts.config import CriticPolicyConfig

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.algorithms.running import RunningMoments
    from realrl.api.batch import PackedBatch

RETURNS = "returns"
"""What a call remembers of returns: the sums of `RunningMoments`."""


def moments(ctx: CallContext[CriticPolicyConfig]) -> RunningMoments:
    """Return the moments of the returns of the steps before this one, the units of the critic's values."""
    sums = ctx.memory.get(RETURNS)
    running = algorithms.running.RunningMoments
    return running.fresh() if sums is None else running(sums)


def bootstraps(config: CriticPolicyConfig, batch: PackedBatch) -> Tensor:
    """Return whether each response's return continues with the value of its last state: bool `[B]`."""
    given = config.ppo.bootstrap_truncated
    of_truncated = config.scores.truncated != "wrong" if given is None else given
    return ~batch["ended"] & of_truncated


def train(ctx: CallContext[CriticPolicyConfig], batch: PackedBatch) -> CallOutput:
    """Train the critic on the returns, by the larger of the errors of its value and of the clipped value.

    The samples that take part are trained on mini-batch by mini-batch; every token counts alike.

    Collective: over the call's ranks.
    """
    critic = ctx.config.present_critic
    metrics: Metrics = {}
    num_updates = 0.0
    for step in parts.update.steps(ctx, batch, critic.optimizer, ctx.config.critic_minibatches, "token"):

        def loss(
            values: Tensor, micro: PackedBatch, num_tokens: float = step.num_tokens
        ) -> tuple[Tensor, Metrics]:
            """Return the loss of a micro-batch, and what is reported of it."""
            # The value of the state before a token is at the token before it.
            found = algorithms.value.value_loss(
                values.roll(1),
                micro["old_values"].roll(1),
                micro["returns"],
                parts.report.responses_of(micro),
                micro["weights"],
                clip_eps=critic.clip_eps,
            )
            share = parts.report.share_of(found.loss, num_tokens, micro)
            return found.loss, {"loss": share, "clip_fraction": parts.report.mean_of(found.clipped)}

        found = ctx.engine.train_values(step.minibatch, loss, lr=step.lr)
        metrics = joined(metrics, parts.report.named("critic_", found))
        num_updates += parts.update.num_updates_of(found)
    return CallOutput(metrics={**metrics, "critic_updates": Mean(num_updates, 1.0)})
