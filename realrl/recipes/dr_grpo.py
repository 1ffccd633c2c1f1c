"""Dr.GRPO: GRPO without its biases by length and difficulty (Liu et al. 2025, arXiv:2503.20783).

actor_gen ──▶ reward ──▶ advantages ──▶ actor_train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallContext, CallOutput
from realrl.recipes import parts
from realrl.recipes.parts import calls
from realrl.recipes.parts.config import GroupConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import PPO_LOSS, WITHOUT_CRITIC, WITHOUT_REFERENCE, Clipping, fixed

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class DrGRPOSettings(Clipping):
    """What can be set of Dr.GRPO: GRPO without its biases by length and difficulty itself."""

    FIXED = fixed(
        **PPO_LOSS,
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        aggregation="constant",
        baseline="group_mean",
        advantage_scale="none",
        max_draws=1,
    )


@dataclass(frozen=True, kw_only=True)
class DrGRPOConfig(GroupConfig):
    """GRPO without its biases by length and difficulty (Liu et al. 2025, arXiv:2503.20783)."""

    experiment: str = "dr-grpo"
    ppo: DrGRPOSettings = field(default_factory=DrGRPOSettings)


def graph(config: DrGRPOConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(
        config,
        *calls.prox_inf(config),
        calls.advantages(config),
        calls.actor_train(config),
    )


def advantages(ctx: CallContext[DrGRPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less the mean of their group (section 3.2), not in units of its spread."""
    estimator = parts.estimates.estimator_of(ctx.config, "dr-grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[DrGRPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on clipped ratios; a response counts by its length, as a sum over `generation.max_new_tokens`."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="constant")


DR_GRPO = policy_recipe(
    "dr-grpo",
    DrGRPOConfig(),
    graph=graph,
    models=calls.models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
