"""The keys of an algorithm's section `ppo`, in parts that algorithms put together.

    Sampling ◀─┬─ Redrawing                            Reference     Discounting
               └─ Updates ◀─ ClipBounds ◀─ Clipping        │              │
                     └───────────┴────────────┴────────────┴──────────────┘
                     GRPOSettings, DAPOSettings, …: an algorithm's own keys

A key that an algorithm does not have is in its `FIXED`, with what it always is.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from realrl.algorithms.choices import Importance, Level
from realrl.api.config import FixedKey, Section
from realrl.base.require import require_at_most

INSTEAD = {
    "max_draws": "recipes dapo and ppo-math draw other prompts",
    "dual_clip": "the recipes with PPO's loss have it, as grpo",
    "ratio": "recipe gspo takes the ratio of a whole response",
    "surrogate": "recipe cispo weights log-probabilities by clipped ratios",
    "aggregation": "grpo, dr-grpo and gspo count tokens otherwise; in grpo it can be chosen",
    "baseline": "give an estimator as `advantage`, or take rloo, reinforce-pp or ppo-math",
    "advantage_scale": "give an estimator as `advantage`, or take dr-grpo, reinforce-pp or ppo-math",
    "gamma": "recipes ppo and ppo-math discount rewards",
    "lam": "recipes ppo and ppo-math have a critic",
    "bootstrap_truncated": "recipes ppo and ppo-math have a critic",
    "kl_coef": "grpo has a KL in the loss, rloo in a response's reward, ppo-math in each token's",
    "kl_in": "grpo has the KL in the loss, rloo in a response's reward, ppo and ppo-math in each token's",
    "kl_estimator": "recipe grpo has a choice of estimators in its loss",
    "ref_eta": "only the reference of a recipe with ppo.kl_coef can follow the actor",
}
"""What to do for another value of a key that an algorithm fixes."""


def fixed(**values: object) -> MappingProxyType[str, FixedKey]:
    """Return what an algorithm fixes: each key with its value, or a tuple of values that say the same."""
    found: dict[str, FixedKey] = {}
    for key, value in values.items():
        all_alike = value if isinstance(value, tuple) else (value,)
        found[key] = FixedKey(all_alike, INSTEAD[key])
    return MappingProxyType(found)


PPO_LOSS = MappingProxyType({"ratio": "token", "surrogate": "ppo"})
"""What the recipes with PPO's loss fix."""
WITHOUT_CRITIC = MappingProxyType({"gamma": 1.0, "lam": 1.0, "bootstrap_truncated": (False, None)})
"""What recipes without a critic fix."""
WITHOUT_REFERENCE = MappingProxyType(
    {
        "kl_coef": 0.0,
        "kl_in": ("loss", "token_reward", "sequence_reward"),
        "kl_estimator": (None, "k1", "k2", "k3"),
        "ref_eta": 0.0,
    }
)
"""What recipes without a reference fix: without a KL, its place and its estimator say nothing."""


def require_at_least(least: float, **values: float | None) -> None:
    """Raise ValueError for a value below `least`; None is left out."""
    for name, value in values.items():
        if value is not None and value < least:
            wanted = "must not be negative" if least == 0 else f"must be at least {least}"
            raise ValueError(f"{name} {wanted}, got {value}")


def require_share(name: str, value: float) -> None:
    """Raise ValueError unless a value is from 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be from 0 to 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class Sampling(Section):
    """How many responses a prompt gets."""

    group_size: int = 8
    """Samples of each prompt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, group_size=self.group_size)
        require_at_most(self, 2**16, "group_size")

    @property
    def max_draws(self) -> int:
        """Prompts tried in one place of a batch."""
        return 1


@dataclass(frozen=True, kw_only=True)
class Redrawing(Sampling):
    """Dynamic sampling (Yu et al. 2025, arXiv:2503.14476, section 3.2)."""

    max_draws: int = 1
    """Prompts tried in one place of a batch: one whose responses are all right or all wrong teaches nothing
    and is replaced by another. In a place where all are, nothing is trained on; with 1, none is replaced."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, max_draws=self.max_draws)
        require_at_most(self, 1000, "max_draws")
        if self.max_draws > 1 and self.group_size == 1:
            raise ValueError(
                "max_draws: responses to a prompt are compared, so ppo.group_size must be at least 2; or set"
                " ppo.max_draws=1"
            )


@dataclass(frozen=True, kw_only=True)
class Updates(Sampling):
    """What an algorithm of policies always has: groups, and optimizer steps on a batch of them."""

    num_minibatches: int = 1
    """Optimizer steps a batch."""
    early_stop_kl: float = 0.0
    """End a batch's optimizer steps when a mini-batch finds the policy further, in nats a token, from the
    policy of `old`. It is looked at before that mini-batch's step, which is not made. 0 never ends them."""
    old: Literal["rollout", "trainer"] = "rollout"
    """Whose log-probabilities the ratio is taken to: those that the rollout recorded, or the trainer's own,
    recomputed before the update by one more call. `trainer` is for another generation engine, whose numbers
    differ from the trainer's, and for stale rollouts."""
    importance: Importance = "none"
    """Weight each token by how likely it is under `old: trainer`, compared with the rollout's policy: not at
    all; truncated at `importance_cap`; or with weights above it left out of the loss. With `old: trainer`,
    `truncate` is decoupled PPO."""
    importance_cap: float = 5.0
    """Cap on the importance weight."""
    importance_level: Level = "token"
    """Whose weight: each token's own, or its response's, the product."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, num_minibatches=self.num_minibatches, importance_cap=self.importance_cap)
        require_at_least(0, early_stop_kl=self.early_stop_kl)
        if self.importance != "none" and self.old == "rollout":
            raise ValueError(
                f"importance: {self.importance} weighs the trainer's policy against the rollout's; set"
                " ppo.old=trainer, or ppo.importance=none"
            )


@dataclass(frozen=True, kw_only=True)
class ClipBounds(Updates):
    """How far a ratio may move."""

    clip_eps: float = 0.2
    """How far the policy's ratio may fall below 1, and rise above it."""
    clip_eps_high: float | None = None
    """How far it may rise, if not as far as it may fall."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, clip_eps=self.clip_eps, clip_eps_high=self.clip_eps_high)

    @property
    def clip_high(self) -> float:
        """How far the ratio may rise above 1."""
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high


@dataclass(frozen=True, kw_only=True)
class Clipping(ClipBounds):
    """PPO's clipping of ratios."""

    dual_clip: float = 0.0
    """Largest ratio that counts where the advantage is negative, above 1; 0 sets none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dual_clip and self.dual_clip <= 1:
            raise ValueError(f"dual_clip must be above 1, or 0 for none, got {self.dual_clip}")
        for name, value in (("clip_eps", self.clip_eps), ("clip_eps_high", self.clip_eps_high)):
            if value == 0:
                raise ValueError(
                    f"{name} must be above 0, got 0: no ratio could move at all; a large one, as 1e9, sets no"
                    " bound"
                )


@dataclass(frozen=True, kw_only=True)
class Reference(Section):
    """A policy that the actor is held near."""

    kl_coef: float = 0.001
    """Cost of each nat that the policy moves from the reference; with 0 there is no reference."""
    ref_eta: float = 0.0
    """Share by which the reference follows the actor after each step, as an exponential moving average."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, kl_coef=self.kl_coef)
        require_share("ref_eta", self.ref_eta)
        if self.ref_eta and not self.kl_coef:
            raise ValueError(
                "ref_eta needs a reference to follow the actor: set kl_coef above 0, or ref_eta=0"
            )


@dataclass(frozen=True, kw_only=True)
class Discounting(Section):
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438)."""

    gamma: float = 1.0
    """Discount of a later token's reward."""
    lam: float = 1.0
    """Weight of longer looks ahead in generalised advantage estimation, with a critic."""
    bootstrap_truncated: bool | None = None
    """With a critic, a response cut off at `generation.max_new_tokens` continues with the value of its last
    state, as AReaL has it, and not with nothing, as verl, OpenRLHF and TRL have it. Left out, true, unless
    `scores.truncated: wrong` says what such a response is worth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("gamma", self.gamma)
        require_share("lam", self.lam)


@dataclass(frozen=True, kw_only=True)
class CriticSettings(Clipping, Discounting, Reference):
    """PPO's clipping, discounting and reference, as recipes with a critic have them."""
