"""What a critic adds to a recipe: its values in units of returns, and the targets that it trains on."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from realrl.algorithms.advantages import Advantages, Scored, generalised_advantages
from realrl.algorithms.running import RunningMoments
from realrl.algorithms.value import ValueLoss, value_loss
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, CallOutput
from realrl.recipes.parts.config import CriticConfig, PolicyConfig
from realrl.recipes.parts.estimates import chosen
from realrl.recipes.parts.report import responses_of
from realrl.recipes.parts.settings import Discounting
from realrl.recipes.parts.update import train_critic

_RETURNS = "returns"
"""What a call remembers of returns: the sums of `RunningMoments`."""


class Targets(NamedTuple):
    """What the critic trains on, in the units of its values: `[T]` each."""

    old_values: Tensor
    """The values before the update."""
    returns: Tensor

    def keys(self) -> dict[str, Tensor]:
        """Return both by name."""
        return {"old_values": self.old_values, "returns": self.returns}


def restored_values(ctx: CallContext[PolicyConfig], batch: PackedBatch) -> Tensor:
    """Return the critic's values in the units of rewards: `[T]`."""
    return _moments(ctx).restored(batch["values"])


def bootstraps(config: PolicyConfig, discounting: Discounting, batch: PackedBatch) -> Tensor:
    """Return whether each response's return continues with the value of its last state: bool `[B]`."""
    given = discounting.bootstrap_truncated
    of_truncated = config.scores.truncated != "wrong" if given is None else given
    return ~batch["ended"] & of_truncated


def estimated(scored: Scored) -> Advantages:
    """Return the advantages by the critic's values, and the returns that these values should have been."""
    return generalised_advantages(scored, rewards=scored.rewards, values=scored.values)


def targets(
    ctx: CallContext[PolicyConfig],
    critic: CriticConfig,
    batch: PackedBatch,
    values: Tensor,
    returns: Tensor,
) -> Targets:
    """Take this step's returns into what the call remembers; return the targets in the new units.

    Shapes: values and returns `[T]`, in the units of rewards.
    Collective: over the ranks of `ctx.reduce`.
    """
    moments = _moments(ctx)
    if critic.normalise != "none":
        part = chosen(ctx.config, batch.with_keys(tokens={"returns": returns}))
        moments = moments.seen(
            part["returns"],
            part["loss_mask"],
            ctx.reduce,
            kind=critic.normalise,
            beta=critic.normalise_beta,
        )
        ctx.memory[_RETURNS] = moments.sums
    return Targets(moments.normalised(values), moments.normalised(returns))


def train(
    ctx: CallContext[PolicyConfig], batch: PackedBatch, critic: CriticConfig, num_minibatches: int
) -> CallOutput:
    """Train the critic on the returns, by the larger of the errors of its value and of the clipped value."""

    def loss(values: Tensor, micro: PackedBatch) -> ValueLoss:
        """Return the loss of a micro-batch."""
        # The value of the state before a token is at the token before it.
        return value_loss(
            values.roll(1),
            micro["old_values"].roll(1),
            micro["returns"],
            responses_of(micro),
            micro["weights"],
            clip_eps=critic.clip_eps,
        )

    optimizer = critic.optimizer
    return train_critic(ctx, batch, loss, optimizer=optimizer, num_minibatches=num_minibatches)


def _moments(ctx: CallContext[PolicyConfig]) -> RunningMoments:
    """Return the moments of the returns of the steps before this one."""
    sums = ctx.memory.get(_RETURNS)
    return RunningMoments.fresh() if sums is None else RunningMoments(sums)
