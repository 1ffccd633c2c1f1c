"""GMPO: the geometric mean of bounded ratios (Zhao et al. 2025, arXiv:2507.20673).

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
from realrl.recipes.parts.settings import WITHOUT_CRITIC, WITHOUT_REFERENCE, ClipBounds, Relative, fixed

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class GMPOSettings(ClipBounds, Relative):
    """What can be set of GMPO."""

    FIXED = fixed(
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        ratio="sequence",
        surrogate="gmpo",
        dual_clip=0.0,
        aggregation="sequence",
        baseline="group_mean",
        max_draws=1,
    )

    num_minibatches: int = 4
    clip_eps: float = 0.4
    """How far the log of a token's ratio may fall, and rise."""


@dataclass(frozen=True, kw_only=True)
class GMPOConfig(GroupConfig):
    """The geometric mean of bounded ratios (Zhao et al. 2025, arXiv:2507.20673)."""

    experiment: str = "gmpo"
    ppo: GMPOSettings = field(default_factory=GMPOSettings)


def graph(config: GMPOConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(
        config,
        *calls.prox_inf(config),
        calls.advantages(config),
        calls.actor_train(config),
    )


def advantages(ctx: CallContext[GMPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less their group's mean, in units of its std."""
    estimator = parts.estimates.estimator_of(ctx.config, "grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[GMPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on the geometric mean of a response's bounded ratios (eq. 4); responses count alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.gmpo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="sequence")


GMPO = policy_recipe(
    "gmpo",
    GMPOConfig(),
    graph=graph,
    models=calls.models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
