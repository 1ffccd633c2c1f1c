"""PPO with a critic (Schulman et al. 2017, arXiv:1707.06347).

actor_gen ──▶ reward, ref_inf, critic_inf ──▶ advantages ──▶ actor_train, critic_train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from realrl import algorithms
from realrl.api.config import ModelConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, ModelSpec
from realrl.recipes import parts
from realrl.recipes.parts import calls
from realrl.recipes.parts.config import CriticConfig, PolicyConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import PPO_LOSS, Clipping, Discounting, Reference, fixed

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


TARGETS = ("returns", "old_values")
"""What the critic trains on."""


@dataclass(frozen=True, kw_only=True)
class PPOSettings(Clipping, Discounting, Reference):
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
class PPOConfig(PolicyConfig):
    """With a critic (Schulman et al. 2017, arXiv:1707.06347)."""

    experiment: str = "ppo"
    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    critic: CriticConfig = field(default_factory=CriticConfig)
    ppo: PPOSettings = field(default_factory=PPOSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minibatches("critic", self.critic_minibatches)

    @property
    def has_critic(self) -> bool:
        """Whether a critic says what a state is worth."""
        return True

    @property
    def critic_minibatches(self) -> int:
        """Optimizer steps of the critic in a batch."""
        return self.critic.num_minibatches or self.ppo.num_minibatches


def graph(config: PPOConfig) -> DataflowGraph:
    """Return one training step; without a KL there is no reference."""
    before: list[Call] = []
    ref: tuple[str, ...] = ()
    if config.ppo.kl_coef:
        before.append(calls.ref_inf())
        ref = ("ref_logprobs",)
    critic_train = Call(
        "critic_train",
        "critic",
        CallKind.TRAIN,
        (*calls.TRAINED, *TARGETS),
        num_minibatches=config.critic_minibatches,
    )
    return calls.step(
        config,
        *before,
        Call("critic_inf", "critic", CallKind.INFERENCE, calls.RESPONSE, ("values",)),
        *calls.prox_inf(config),
        calls.advantages(config, *ref, "values", outputs=("advantages", *TARGETS)),
        critic_train,
        calls.actor_train(config, *ref),
    )


def models(config: PPOConfig) -> dict[str, ModelSpec]:
    """Return the actor and the critic, and the reference and the reward model where there are such."""
    specs = calls.models(config, config.ref)
    specs["critic"] = ModelSpec(
        config.critic.model or config.actor.model,
        "scalar",
        config.critic.optimizer,
    )
    return specs


def critic_inf(ctx: CallContext[PPOConfig], batch: PackedBatch) -> CallOutput:
    """Take the critic's value of the state after each token."""
    return parts.rollout.take_values(ctx, batch)


def advantages(ctx: CallContext[PPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages by the critic's values, and the returns that it trains on (arXiv:1506.02438)."""
    config, ppo = ctx.config, ctx.config.ppo
    values = parts.critic.restored_values(ctx, batch)
    scored = parts.estimates.scored(
        ctx,
        batch,
        token_rewards=parts.reference.token_costs(batch, ppo.kl_coef),
        values=values,
        bootstrap=parts.critic.bootstraps(config, ppo, batch),
        gamma=ppo.gamma,
        lam=ppo.lam,
    )
    estimated = parts.critic.estimated(scored)
    found = estimated.advantages
    if config.advantage not in (None, "gae"):
        found = parts.estimates.estimator_of(config, "gae")(scored)
    targets = parts.critic.targets(
        ctx,
        config.critic,
        batch,
        values,
        estimated.returns,
    )
    normalised = ppo.advantage_scale != "none"
    return parts.estimates.output(ctx, batch, found, normalised=normalised, more=targets.keys())


def actor_train(ctx: CallContext[PPOConfig], batch: PackedBatch) -> CallOutput:
    """Train the policy on clipped ratios (eq. 7); every token counts alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    return parts.update.train_policy(ctx, batch, loss, aggregation="token")


def critic_train(ctx: CallContext[PPOConfig], batch: PackedBatch) -> CallOutput:
    """Train the critic on the returns."""
    return parts.critic.train(
        ctx,
        batch,
        ctx.config.critic,
        ctx.config.critic_minibatches,
    )


PPO = policy_recipe(
    "ppo",
    PPOConfig(),
    graph=graph,
    models=models,
    bodies={
        "critic_inf": critic_inf,
        "advantages": advantages,
        "actor_train": actor_train,
        "critic_train": critic_train,
    },
)
