"""GSPO: ratios of whole responses (Zheng et al. 2025, arXiv:2507.18071).

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
class GSPOSettings(ClipBounds):
    """What can be set of GSPO: ratios of whole responses itself."""

    FIXED = fixed(
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        ratio="sequence",
        surrogate="ppo",
        dual_clip=0.0,
        aggregation="sequence",
        baseline="group_mean",
        advantage_scale=("group_std", None),
        max_draws=1,
    )

    num_minibatches: int = 4
    clip_eps: float = 3e-4
    clip_eps_high: float | None = 4e-4


@dataclass(frozen=True, kw_only=True)
class GSPOConfig(GroupConfig):
    """Ratios of whole responses (Zheng et al. 2025, arXiv:2507.18071)."""

    experiment: str = "gspo"
    ppo: GSPOSettings = field(default_factory=GSPOSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        engine = self.generation.engine
        if self.ppo.old == "rollout" and engine != "realrl":
            raise ValueError(
                f"ppo.old: gspo compares mean log-probabilities of responses to within {self.ppo.clip_eps:g}"
                f" (ppo.clip_eps), and those of generation.engine={engine} differ from the trainer's by more;"
                " set ppo.old=trainer, or generation.engine=realrl"
            )


def graph(config: GSPOConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(
        config,
        *calls.prox_inf(config),
        calls.advantages(config),
        calls.actor_train(config),
    )


def advantages(ctx: CallContext[GSPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less their group's mean, in units of its std (eq. 6)."""
    estimator = parts.estimates.estimator_of(ctx.config, "grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[GSPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on the clipped geometric mean of a response's ratios (eq. 5 and 7); responses count alike."""
    ppo = ctx.config.ppo
    loss = partial(
        algorithms.policy.gspo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
    )
    return parts.actor.train(ctx, batch, loss, aggregation="sequence")


GSPO = policy_recipe(
    "gspo",
    GSPOConfig(),
    graph=graph,
    models=calls.models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
