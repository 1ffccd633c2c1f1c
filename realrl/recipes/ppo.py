"""PPO with a critic (Schulman et al. 2017, arXiv:1707.06347).

actor_gen ──▶ reward, ref_inf, critic_inf ──▶ advantages ──▶ actor_train, critic_train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from realrl import algorithms
from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallContext, CallOutput
from realrl.recipes import parts
from realrl.recipes.parts import calls, critic
from realrl.recipes.parts.config import CriticConfig, CriticPolicyConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import PPO_LOSS, CriticSettings, fixed

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class PPOSettings(CriticSettings):
    """What can be set of PPO itself."""

    FIXED = fixed(
        **PPO_LOSS,
        aggregation="token",
        baseline=("none", "group_mean"),
        kl_in="token_reward",
        kl_estimator=("k1", None),
        max_draws=1,
    )

    group_size: int = 1
    num_minibatches: int = 4
    lam: float = 0.95
    advantage_scale: Literal["batch", "none"] | None = None
    """What advantages are divided by, less their mean: the standard deviation over the batch's tokens; or
    nothing. Left out, `batch`."""


@dataclass(frozen=True, kw_only=True)
class PPOConfig(CriticPolicyConfig):
    """With a critic (Schulman et al. 2017, arXiv:1707.06347)."""

    experiment: str = "ppo"
    critic: CriticConfig = field(default_factory=CriticConfig)
    ppo: PPOSettings = field(default_factory=PPOSettings)

    @property
    def scales_over_batch(self) -> bool:
        """Whether advantages are divided by their standard deviation over the batch's tokens."""
        return self.ppo.advantage_scale != "none"


def graph(config: PPOConfig) -> DataflowGraph:
    """Return one training step; without a KL there is no reference."""
    before = []
    ref: tuple[str, ...] = ()
    if config.ppo.kl_coef:
        before.append(calls.ref_inf())
        ref = ("ref_logprobs",)
    return calls.step(
        config,
        *before,
        calls.critic_inf(),
        *calls.prox_inf(config),
        calls.advantages(config, *ref, "values", outputs=("advantages", *calls.TARGETS)),
        calls.critic_train(config),
        calls.actor_train(config, *ref),
    )


def advantages(ctx: CallContext[CriticPolicyConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages by the critic's values, and the returns that it trains on (arXiv:1506.02438).

    `ppo-math` with a critic has the same body.
    """
    config, ppo = ctx.config, ctx.config.ppo
    # The critic's values are in units of the returns of earlier steps, rewards are not.
    moments = critic.moments(ctx)
    values = moments.restored(batch["values"])
    scored = parts.estimates.scored(
        ctx,
        batch,
        kl_coef=ppo.kl_coef,
        values=values,
        bootstrap=critic.bootstraps(config, batch),
        gamma=ppo.gamma,
        lam=ppo.lam,
    )
    estimated = algorithms.advantages.generalised_advantages(scored, rewards=scored.rewards, values=values)
    found = estimated.advantages
    if config.advantage not in (None, "gae"):
        found = parts.estimates.estimator_of(config, "gae")(scored)

    if config.present_critic.normalise != "none":
        trained = parts.estimates.trained_tokens(config, batch)
        moments = moments.seen(
            estimated.returns,
            trained,
            ctx.reduce,
            kind=config.present_critic.normalise,
            beta=config.present_critic.normalise_beta,
        )
        ctx.memory[critic.RETURNS] = moments.sums
    # From here on, values are in units of these returns, too.
    targets = {"old_values": moments.normalised(values), "returns": moments.normalised(estimated.returns)}
    return parts.estimates.output(ctx, batch, found, normalised=config.scales_over_batch, more=targets)


def actor_train(ctx: CallContext[CriticPolicyConfig], batch: PackedBatch) -> CallOutput:
    """Train the policy on clipped ratios (eq. 7); every token counts alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="token")


PPO = policy_recipe(
    "ppo",
    PPOConfig(),
    graph=graph,
    models=calls.models_with_critic,
    bodies={
        "advantages": advantages,
        "actor_train": actor_train,
        "critic_train": critic.train,
    },
)
