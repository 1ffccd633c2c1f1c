"""DAPO: clip-higher, dynamic sampling, token-level loss, no KL (Yu et al. 2025, arXiv:2503.14476).

actor_gen ──▶ reward ──▶ advantages ──▶ actor_train
    ▲            │
    └── other ◀──┘ prompts whose responses are all right or all wrong
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
from realrl.recipes.parts.config import GroupConfig, ScoreConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import (
    PPO_LOSS,
    WITHOUT_CRITIC,
    WITHOUT_REFERENCE,
    Clipping,
    Redrawing,
    fixed,
)

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class DAPOSettings(Redrawing, Clipping):
    """What can be set of DAPO: clip-higher, dynamic sampling, token-level loss, no KL itself."""

    FIXED = fixed(
        **PPO_LOSS,
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        aggregation="token",
        baseline="group_mean",
        advantage_scale=("group_std", None),
    )

    group_size: int = 16
    max_draws: int = 10
    clip_eps_high: float | None = 0.28


@dataclass(frozen=True, kw_only=True)
class DAPOConfig(GroupConfig):
    """Clip-higher, dynamic sampling, token-level loss, no KL (Yu et al. 2025, arXiv:2503.14476)."""

    experiment: str = "dapo"
    ppo: DAPOSettings = field(default_factory=DAPOSettings)
    scores: ScoreConfig = field(default_factory=lambda: ScoreConfig(correct=1.0, wrong=-1.0))


def graph(config: DAPOConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(
        config,
        *calls.prox_inf(config),
        calls.advantages(config),
        calls.actor_train(config),
    )


def advantages(ctx: CallContext[DAPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less their group's mean, in units of its std (eq. 9)."""
    estimator = parts.estimates.estimator_of(ctx.config, "grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[DAPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on ratios that may rise further than they may fall (eq. 8); every token counts alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="token")


DAPO = policy_recipe(
    "dapo",
    DAPOConfig(),
    graph=graph,
    models=calls.models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
