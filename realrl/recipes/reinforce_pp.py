"""REINFORCE++: no baseline, advantages normalised over the batch (Hu 2025, arXiv:2501.03262).

actor_gen ──▶ reward, ref_inf ──▶ advantages ──▶ actor_train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.api.config import ModelConfig
from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallContext, CallOutput, ModelSpec
from realrl.recipes import parts
from realrl.recipes.parts import calls
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import KL_IN_REWARD, PPO_LOSS, WITHOUT_CRITIC, Clipping, Reference, fixed

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class ReinforcePPSettings(Clipping, Reference):
    """What can be set of REINFORCE++ itself."""

    FIXED = fixed(
        **PPO_LOSS,
        **WITHOUT_CRITIC,
        aggregation="token",
        baseline="none",
        advantage_scale=("batch", None),
        kl_in="token_reward",
        **KL_IN_REWARD,
        std="population",
        max_draws=1,
    )

    group_size: int = 4
    kl_coef: float = 0.01


@dataclass(frozen=True, kw_only=True)
class ReinforcePPConfig(AdvantageConfig):
    """REINFORCE++: advantages normalised over the batch (Hu 2025, arXiv:2501.03262)."""

    experiment: str = "reinforce-pp"
    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    ppo: ReinforcePPSettings = field(default_factory=ReinforcePPSettings)


def graph(config: ReinforcePPConfig) -> DataflowGraph:
    """Return one training step; without a KL there is no reference."""
    if not config.ppo.kl_coef:
        trained = calls.actor_train(config)
        return calls.step(
            config,
            *calls.prox_inf(config),
            calls.advantages(config),
            trained,
        )
    return calls.step(
        config,
        calls.ref_inf(),
        *calls.prox_inf(config),
        calls.advantages(config, "ref_logprobs"),
        calls.actor_train(config, "ref_logprobs"),
    )


def models(config: ReinforcePPConfig) -> dict[str, ModelSpec]:
    """Return the actor, and the reference and the reward model where there are such."""
    return calls.models(config, config.ref)


def advantages(ctx: CallContext[ReinforcePPConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: each token's reward to go, less its KL, normalised over the batch's tokens."""
    kl_coef = ctx.config.ppo.kl_coef
    if kl_coef:
        kl_coef = parts.reference.adapted_kl_coef(ctx, batch)
        lesson = parts.estimates.differences(ctx, batch)
        kl_coef = parts.reference.kl_coef_unless_noise(
            ctx,
            batch,
            kl_coef,
            lesson=lesson,
        )
    scored = parts.estimates.scored(ctx, batch, kl_coef=kl_coef)
    estimator = parts.estimates.estimator_of(ctx.config, "reinforce")
    return parts.estimates.output(
        ctx,
        batch,
        estimator(scored),
        normalised=True,
    )


def actor_train(ctx: CallContext[ReinforcePPConfig], batch: PackedBatch) -> CallOutput:
    """Train on clipped ratios; every token counts alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="token")


REINFORCE_PP = policy_recipe(
    "reinforce-pp",
    ReinforcePPConfig(),
    graph=graph,
    models=models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
