"""RLOO: the mean of the other samples as baseline (Ahmadian et al. 2024, arXiv:2402.14740).

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
from realrl.recipes.parts.config import GroupConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.reward_names import GDPO
from realrl.recipes.parts.settings import KL_IN_REWARD, PPO_LOSS, WITHOUT_CRITIC, Clipping, Reference, fixed

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class RLOOSettings(Clipping, Reference):
    """What can be set of RLOO itself."""

    FIXED = fixed(
        **PPO_LOSS,
        **WITHOUT_CRITIC,
        aggregation="constant",
        baseline="leave_one_out",
        advantage_scale="none",
        kl_in="sequence_reward",
        **KL_IN_REWARD,
        std="population",
        max_draws=1,
    )

    kl_coef: float = 0.03


@dataclass(frozen=True, kw_only=True)
class RLOOConfig(GroupConfig):
    """The mean of the other samples as baseline (Ahmadian et al. 2024, arXiv:2402.14740)."""

    experiment: str = "rloo"
    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    ppo: RLOOSettings = field(default_factory=RLOOSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.advantage == GDPO and self.ppo.kl_coef:
            raise ValueError(
                "advantage: gdpo looks at each reward by itself, and rloo takes the KL off their sum; set"
                " ppo.kl_coef=0, or take the recipe grpo, which has it in the loss"
            )


def graph(config: RLOOConfig) -> DataflowGraph:
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


def models(config: RLOOConfig) -> dict[str, ModelSpec]:
    """Return the actor, and the reference and the reward model where there are such."""
    return calls.models(config, config.ref)


def advantages(ctx: CallContext[RLOOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards, less each response's KL, less the mean of the group's others (eq. 8)."""
    kl_coef = ctx.config.ppo.kl_coef
    if kl_coef:
        kl_coef = parts.reference.adapted_kl_coef(ctx, batch)
        kl_coef = parts.reference.kl_coef_unless_noise(
            ctx,
            batch,
            kl_coef,
            lesson=_lesson(ctx, batch),
        )
    costs = parts.reference.response_costs(batch, kl_coef)
    rewards = batch["rewards"] - costs
    scored = parts.estimates.scored(ctx, batch, rewards=rewards)
    estimator = parts.estimates.estimator_of(ctx.config, "rloo")
    return parts.estimates.output(ctx, batch, estimator(scored))


def _lesson(ctx: CallContext[RLOOConfig], batch: PackedBatch) -> Tensor:
    """Return what rewards teach without the KL: `[B]`, all 0 where they teach nothing."""
    graded = parts.estimates.scored(ctx, batch)
    relative = algorithms.advantages.relative_rewards(graded, baseline="leave_one_out")
    return relative * graded.counts


def actor_train(ctx: CallContext[RLOOConfig], batch: PackedBatch) -> CallOutput:
    """Train on clipped ratios; a response counts by its length, as a sum over `generation.max_new_tokens`."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="constant")


RLOO = policy_recipe(
    "rloo",
    RLOOConfig(),
    graph=graph,
    models=models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
