"""PPO on problems with checkable answers, with a critic or without, as AReaL's first release has it.

    actor_gen ──▶ reward, ref_inf ──▶ advantages ──▶ actor_train                             without a critic
    actor_gen ──▶ reward, ref_inf, critic_inf ──▶ advantages ──▶ actor_train, critic_train   with `critic: {}`

Without a critic, the rewards of a prompt's samples are taken relative to each other (Shao et al. 2024,
arXiv:2402.03300, section 4.1.1), or as they are (github.com/inclusionAI/AReaL, blog/AReaL_v0_1.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from realrl import algorithms
from realrl.api.graph import DataflowGraph
from realrl.api.recipe import CallContext, CallOutput
from realrl.recipes import parts
from realrl.recipes.parts import calls, critic
from realrl.recipes.parts.config import CriticPolicyConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import KL_IN_REWARD, PPO_LOSS, CriticSettings, Redrawing, fixed
from realrl.recipes.ppo import actor_train
from realrl.recipes.ppo import advantages as advantages_by_critic

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.algorithms.advantages import Scored
    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class PPOMathSettings(Redrawing, CriticSettings):
    """The algorithm's own numbers."""

    FIXED = fixed(**PPO_LOSS, aggregation="token", kl_in="token_reward", std="population", **KL_IN_REWARD)

    baseline: Literal["group_mean", "leave_one_out", "none"] = "group_mean"
    """Without a critic, what is taken off a response's reward: the mean of its prompt's responses, or of the
    others of them."""
    advantage_scale: Literal["group_std", "batch", "none"] | None = None
    """What advantages are divided by: the (population) standard deviation of the rewards of a prompt's
    responses; or, less their mean, that over the batch's tokens. Left out, `batch` with a critic or without a
    baseline, else `group_std`."""


@dataclass(frozen=True, kw_only=True)
class PPOMathConfig(CriticPolicyConfig):
    """PPO, or one of its critic-free relatives, on problems with checkable answers."""

    experiment: str = "ppo-math"
    ppo: PPOMathSettings = field(default_factory=PPOMathSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        has_scale = self.ppo.baseline != "group_mean" or self.ppo.advantage_scale == "group_std"
        if self.advantage is not None and has_scale:
            raise ValueError(
                "advantage: an estimator that is named has its own baseline and scale; leave out"
                " ppo.baseline, and set ppo.advantage_scale to batch, to none, or not at all"
            )
        if self.critic is None:
            self._check_without_critic(self.ppo)
        elif self.ppo.advantage_scale == "group_std":
            raise ValueError("ppo.advantage_scale: group_std is for runs without a critic; use batch or none")

    @staticmethod
    def _check_without_critic(ppo: PPOMathSettings) -> None:
        """Refuse settings of the advantages that do nothing, or not what they say."""
        if ppo.baseline != "none" and ppo.group_size == 1:
            raise ValueError(
                "ppo.group_size must be at least 2 without a critic: give critic: {}, more samples, or"
                " ppo.baseline=none"
            )
        if ppo.baseline == "none" and ppo.advantage_scale == "group_std":
            raise ValueError(
                "ppo.advantage_scale: group_std divides differences from a group's baseline, and ppo.baseline"
                " is none; use batch or none, or set ppo.baseline=group_mean"
            )
        if ppo.lam < 1:
            raise ValueError(
                f"ppo.lam: without a critic, lam={ppo.lam:g} would discount a response's reward by"
                " lam ** (its length - t); set ppo.lam=1, give critic: {}, or discount by ppo.gamma"
            )
        if ppo.length_adaptive_lam:
            raise ValueError(
                "ppo.length_adaptive_lam: it is for advantages by a critic; give critic: {}, or leave it out"
            )
        if ppo.bootstrap_truncated:
            raise ValueError(
                "ppo.bootstrap_truncated: true takes the critic's value of a response's last state; give"
                " critic: {}, or leave it out"
            )

    @property
    def advantage_scale(self) -> Literal["group_std", "batch", "none"]:
        """What advantages are divided by."""
        in_groups = self.critic is None and self.ppo.baseline != "none"
        return self.ppo.advantage_scale or ("group_std" if in_groups else "batch")

    @property
    def scales_over_batch(self) -> bool:
        """Whether advantages are divided by their standard deviation over the batch's tokens."""
        return self.advantage_scale == "batch"


def graph(config: PPOMathConfig) -> DataflowGraph:
    """Return one training step; without a KL there is no reference."""
    before = []
    ref: tuple[str, ...] = ()
    if config.ppo.kl_coef:
        before.append(calls.ref_inf())
        ref = ("ref_logprobs",)
    if config.critic is None:
        estimate = calls.advantages(config, *ref)
    else:
        before += [calls.critic_inf(), calls.critic_train(config)]
        estimate = calls.advantages(config, *ref, "values", outputs=("advantages", *calls.TARGETS))
    before += calls.prox_inf(config)
    return calls.step(
        config,
        *before,
        estimate,
        calls.actor_train(config, *ref),
    )


def advantages(ctx: CallContext[PPOMathConfig], batch: PackedBatch) -> CallOutput:
    """Estimate advantages by the critic's values, or without a critic from rewards in groups."""
    config, ppo = ctx.config, ctx.config.ppo
    if config.critic is not None:
        return advantages_by_critic(ctx, batch)
    kl_coef = ppo.kl_coef
    if kl_coef:
        kl_coef = parts.reference.adapted_kl_coef(ctx, batch)
        kl_coef = parts.reference.kl_coef_unless_noise(
            ctx,
            batch,
            kl_coef,
            lesson=_lesson(ctx, batch),
        )
    scored = parts.estimates.scored(ctx, batch, kl_coef=kl_coef, gamma=ppo.gamma)
    if config.advantage is None:
        found = scored.to_go(_relative(config, scored))
    else:
        found = parts.estimates.estimator_of(config, "grpo")(scored)
    return parts.estimates.output(ctx, batch, found, normalised=config.scales_over_batch)


def _relative(config: PPOMathConfig, scored: Scored) -> Tensor:
    """Return rewards less their baseline, if there is one: `[B]`."""
    baseline = config.ppo.baseline
    if baseline == "none":
        return scored.rewards
    scale: Literal["group_std", "none"] = "group_std" if config.advantage_scale == "group_std" else "none"
    return algorithms.advantages.relative_rewards(scored, baseline=baseline, scale=scale)


def _lesson(ctx: CallContext[PPOMathConfig], batch: PackedBatch) -> Tensor:
    """Return what rewards teach without the KL: `[B]`, all 0 where they teach nothing."""
    config = ctx.config
    if config.ppo.baseline == "none" and config.advantage_scale == "batch":
        return parts.estimates.differences(ctx, batch)
    graded = parts.estimates.scored(ctx, batch)
    return _relative(config, graded) * graded.counts


PPO_MATH = policy_recipe(
    "ppo-math",
    PPOMathConfig(),
    graph=graph,
    models=calls.models_with_critic,
    bodies={
        "advantages": advantages,
        "actor_train": actor_train,
        "critic_train": critic.train,
    },
)
