"""Published algorithms as settings of `ppo_math`: what each changes, and where it is from."""

from __future__ import annotations

from dataclasses import dataclass, field

from realrl.recipes.ppo_config import CriticConfig, PPOConfig, PPOMathConfig, ScoreConfig


@dataclass(frozen=True, kw_only=True)
class PPOCriticConfig(PPOMathConfig):
    """With a critic (Schulman et al. 2017, arXiv:1707.06347)."""

    experiment: str = "ppo"
    critic: CriticConfig | None = field(default_factory=CriticConfig)
    ppo: PPOConfig = field(default_factory=lambda: PPOConfig(group_size=1, num_minibatches=4, lam=0.95))


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(PPOMathConfig):
    """Rewards relative to their group, KL in the loss (Shao et al. 2024, arXiv:2402.03300)."""

    experiment: str = "grpo"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            kl_coef=0.04, kl_in="loss", kl_estimator="k3", aggregation="sequence"
        )
    )


@dataclass(frozen=True, kw_only=True)
class DrGRPOConfig(PPOMathConfig):
    """GRPO without its biases by length and difficulty (Liu et al. 2025, arXiv:2503.20783)."""

    experiment: str = "dr-grpo"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(advantage_scale="none", aggregation="constant", kl_coef=0.0)
    )


@dataclass(frozen=True, kw_only=True)
class RLOOConfig(PPOMathConfig):
    """The mean of the other samples as baseline (Ahmadian et al. 2024, arXiv:2402.14740)."""

    experiment: str = "rloo"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            baseline="leave_one_out",
            advantage_scale="none",
            aggregation="constant",
            kl_coef=0.03,
            kl_in="sequence_reward",
        )
    )


@dataclass(frozen=True, kw_only=True)
class ReinforcePPConfig(PPOMathConfig):
    """REINFORCE++: advantages normalised over the batch (Hu 2025, arXiv:2501.03262)."""

    experiment: str = "reinforce-pp"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            group_size=4, baseline="none", advantage_scale="batch", kl_coef=0.01
        )
    )


@dataclass(frozen=True, kw_only=True)
class DAPOConfig(PPOMathConfig):
    """Clip-higher, dynamic sampling, token-level loss, no KL (Yu et al. 2025, arXiv:2503.14476)."""

    experiment: str = "dapo"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            group_size=16, max_draws=10, clip_eps=0.2, clip_eps_high=0.28, kl_coef=0.0
        )
    )
    scores: ScoreConfig = field(default_factory=lambda: ScoreConfig(correct=1.0, wrong=-1.0))


@dataclass(frozen=True, kw_only=True)
class GSPOConfig(PPOMathConfig):
    """Ratios of whole responses (Zheng et al. 2025, arXiv:2507.18071)."""

    experiment: str = "gspo"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            num_minibatches=4,
            ratio="sequence",
            aggregation="sequence",
            clip_eps=3e-4,
            clip_eps_high=4e-4,
            kl_coef=0.0,
        )
    )


@dataclass(frozen=True, kw_only=True)
class CISPOConfig(PPOMathConfig):
    """Clipped ratios as mere weights (MiniMax 2025, arXiv:2506.13585; Khatri et al. 2025, 2510.13786)."""

    experiment: str = "cispo"
    ppo: PPOConfig = field(
        default_factory=lambda: PPOConfig(
            num_minibatches=4, surrogate="cispo", clip_eps=1.0, clip_eps_high=4.0, kl_coef=0.0
        )
    )


VARIANTS = (
    PPOCriticConfig,
    GRPOConfig,
    DrGRPOConfig,
    RLOOConfig,
    ReinforcePPConfig,
    DAPOConfig,
    GSPOConfig,
    CISPOConfig,
)
"""The configs; each one's `experiment` is the recipe's name too."""
