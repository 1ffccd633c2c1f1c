"""CISPO: clipped ratios as mere weights (MiniMax 2025, arXiv:2506.13585; Khatri et al. 2025, 2510.13786).

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
from realrl.recipes.parts.settings import WITHOUT_CRITIC, WITHOUT_REFERENCE, ClipBounds, fixed

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class CISPOSettings(ClipBounds):
    """What can be set of CISPO: clipped ratios as mere weights itself."""

    FIXED = fixed(
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        ratio="token",
        surrogate="cispo",
        dual_clip=0.0,
        aggregation="token",
        baseline="group_mean",
        advantage_scale=("group_std", None),
        max_draws=1,
    )

    num_minibatches: int = 4
    clip_eps: float = 1.0
    clip_eps_high: float | None = 4.0


@dataclass(frozen=True, kw_only=True)
class CISPOConfig(GroupConfig):
    """Clipped ratios as mere weights (MiniMax 2025, arXiv:2506.13585; Khatri et al. 2025, 2510.13786)."""

    experiment: str = "cispo"
    ppo: CISPOSettings = field(default_factory=CISPOSettings)


def graph(config: CISPOConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(
        config,
        *calls.prox_inf(config),
        calls.advantages(config),
        calls.actor_train(config),
    )


def advantages(ctx: CallContext[CISPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less their group's mean, in units of its std."""
    estimator = parts.estimates.estimator_of(ctx.config, "grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[CISPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on log-probabilities weighted by clipped ratios (eq. 4); every token counts alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.cispo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="token")


CISPO = policy_recipe(
    "cispo",
    CISPOConfig(),
    graph=graph,
    models=calls.models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
