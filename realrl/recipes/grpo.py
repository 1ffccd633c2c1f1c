"""GRPO: rewards relative to their group, KL in the loss (Shao et al. 2024, arXiv:2402.03300).

actor_gen ──▶ reward, ref_inf ──▶ advantages ──▶ actor_train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.algorithms.choices import Aggregation, Estimator
from realrl.api.config import ModelConfig
from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallContext, CallOutput, ModelSpec
from realrl.recipes import parts
from realrl.recipes.parts import calls
from realrl.recipes.parts.config import GroupConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import PPO_LOSS, WITHOUT_CRITIC, Clipping, Reference, fixed

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.algorithms.policy import ResponseTokens
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(Clipping, Reference):
    """What can be set of GRPO itself."""

    FIXED = fixed(
        **PPO_LOSS,
        **WITHOUT_CRITIC,
        baseline="group_mean",
        advantage_scale=("group_std", None),
        kl_in="loss",
        max_draws=1,
    )

    kl_coef: float = 0.04
    kl_estimator: Estimator = "k3"
    """How that distance is estimated from the sampled tokens (J. Schulman, "Approximating KL Divergence")."""
    aggregation: Aggregation = "sequence"
    """Of tokens into the loss: the mean over all of them, over the responses of each one's mean, or by the
    constant `generation.max_new_tokens` for each response."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_coef and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator: the gradient of k1 in the loss is zero on average, so it regularises nothing;"
                " use k3 or k2, or leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(GroupConfig):
    """Rewards relative to their group, KL in the loss (Shao et al. 2024, arXiv:2402.03300)."""

    experiment: str = "grpo"
    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    ppo: GRPOSettings = field(default_factory=GRPOSettings)


def graph(config: GRPOConfig) -> DataflowGraph:
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
        calls.advantages(config),
        calls.actor_train(config, "ref_logprobs"),
    )


def models(config: GRPOConfig) -> dict[str, ModelSpec]:
    """Return the actor, and the reference and the reward model where there are such."""
    return calls.models(config, config.ref)


def advantages(ctx: CallContext[GRPOConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages: rewards less their group's mean, in units of its std (section 4.1.2)."""
    estimator = parts.estimates.estimator_of(ctx.config, "grpo")
    scored = parts.estimates.scored(ctx, batch)
    return parts.estimates.output(ctx, batch, estimator(scored))


def actor_train(ctx: CallContext[GRPOConfig], batch: PackedBatch) -> CallOutput:
    """Train on clipped ratios, less the KL to the reference (eq. 3)."""
    ppo = ctx.config.ppo
    kl_coef = parts.reference.kl_coef_unless_noise(
        ctx,
        batch,
        ppo.kl_coef,
        lesson=batch["advantages"],
    )

    loss = partial(
        algorithms.policy.ppo_loss,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
    )

    def distance(tokens: ResponseTokens, micro: PackedBatch) -> Tensor | float:
        """Return the cost of the KL to the reference."""
        if not kl_coef:
            return 0.0
        return parts.reference.kl_loss(tokens, micro, kl_coef, ppo.kl_estimator)

    return parts.actor.train(ctx, batch, loss, aggregation=ppo.aggregation, term=distance)


GRPO = policy_recipe(
    "grpo",
    GRPOConfig(),
    graph=graph,
    models=models,
    bodies={"advantages": advantages, "actor_train": actor_train},
)
