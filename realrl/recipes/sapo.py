"""SAPO: a soft gate on ratios in place of a bound (Gao et al. 2025, arXiv:2511.20347).

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
from realrl.recipes.parts.settings import (
    WITHOUT_CLIPPING,
    WITHOUT_CRITIC,
    WITHOUT_REFERENCE,
    Relative,
    Updates,
    fixed,
)

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class SAPOSettings(Updates, Relative):
    """What can be set of SAPO."""

    FIXED = fixed(
        **WITHOUT_CLIPPING,
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        ratio="token",
        surrogate="sapo",
        aggregation="sequence",
        baseline="group_mean",
        max_draws=1,
    )

    num_minibatches: int = 4
    tau_positive: float = 1.0
    """How fast the gate closes as the ratio of a token with a positive advantage leaves 1."""
    tau_negative: float = 1.05
    """The same for all other tokens, which make a run unstable sooner."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, tau in (("tau_positive", self.tau_positive), ("tau_negative", self.tau_negative)):
            if tau <= 0:
                raise ValueError(f"{name} must be above 0, got {tau}")


@dataclass(frozen=True, kw_only=True)
class SAPOConfig(GroupConfig):
    """A soft gate on ratios in place of a bound (Gao et al. 2025, arXiv:2511.20347)."""

    experiment: str = "sapo"
    ppo: SAPOSettings = field(default_factory=SAPOSettings)


def graph(config: SAPOConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(
        config,
        *calls.prox_inf(config),
        calls.advantages(config),
        calls.actor_train(config),
    )


def advantages(ctx: CallContext[SAPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less their group's mean, in units of its std."""
    estimator = parts.estimates.estimator_of(ctx.config, "grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[SAPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on ratios that a sigmoid fades out (eq. 5); responses count alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.sapo_loss,
        tau_positive=ppo.tau_positive,
        tau_negative=ppo.tau_negative,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="sequence")


SAPO = policy_recipe(
    "sapo",
    SAPOConfig(),
    graph=graph,
    models=calls.models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
