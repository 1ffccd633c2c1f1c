"""The keys of an algorithm's section `ppo`, in parts that algorithms put together.

    Sampling ◀─┬─ Redrawing                      Relative   Reference   Discounting
               └─ Updates ◀─ ClipBounds ◀─ Clipping  │          │            │
                     └───────────┴────────────┴──────┴──────────┴────────────┘
                     GRPOSettings, DAPOSettings, …: an algorithm's own keys

A key that an algorithm does not have is in its `FIXED`, with what it always is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from realrl.algorithms.choices import CorrectionName, MaskBy, WeightBy
from realrl.algorithms.presets import CORRECTIONS, Correction
from realrl.api.config import FixedKey, Section
from realrl.base.require import require_at_most

INSTEAD = {
    "max_draws": "recipes dapo and ppo-math draw other prompts",
    "clip_eps": "recipes with bounds on ratios have it, as grpo; sapo has ppo.tau_positive",
    "clip_eps_high": "recipes with bounds on ratios have it, as grpo; sapo has ppo.tau_positive",
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
    "importance": "it has moved: with a cap of 5, `truncate` is ppo.correction={weight: token, cap: 5}, and"
    " `mask` is {weight: token, mask: token, high: 5}",
    "importance_cap": "set ppo.correction.cap, or ppo.correction.high of a mask",
    "importance_level": "set ppo.correction.weight and ppo.correction.mask",
    "std": "only recipes with ppo.advantage_scale=group_std have a choice, as grpo",
    "kl_target": "only recipes with ppo.kl_coef adapt it",
    "kl_horizon": "only recipes with ppo.kl_coef adapt it",
    "kl_weighted": "only grpo has a KL in its loss that can be weighted",
    "kl_clip": "only grpo has a KL in its loss that can be clipped",
    "length_adaptive_lam": "recipes ppo and ppo-math have a critic",
    "num_minibatches": "raft makes one optimizer step of a batch; grpo and its relatives may make several",
    "early_stop_kl": "raft makes one optimizer step of a batch; grpo and its relatives may end early",
    "old": "grpo and its relatives have ratios",
    "ref_eta": "only the reference of a recipe with ppo.kl_coef can follow the actor",
}
"""What to do for another value of a key that an algorithm fixes."""


MOVED = MappingProxyType({"importance": "none", "importance_cap": 5.0, "importance_level": "token"})
"""Keys that others have replaced, with values that say nothing."""


def fixed(**values: object) -> MappingProxyType[str, FixedKey]:
    """Return what an algorithm fixes: each key with its value, or a tuple of values that say the same."""
    found: dict[str, FixedKey] = {}
    for key, value in {**MOVED, **values}.items():
        all_alike = value if isinstance(value, tuple) else (value,)
        found[key] = FixedKey(all_alike, INSTEAD[key])
    return MappingProxyType(found)


PPO_LOSS = MappingProxyType({"ratio": "token", "surrogate": "ppo"})
"""What the recipes with PPO's loss fix."""
WITHOUT_CLIPPING = MappingProxyType({"clip_eps": 0.2, "clip_eps_high": None, "dual_clip": 0.0})
"""What recipes without bounds on ratios fix; the values say nothing."""
WITHOUT_CRITIC = MappingProxyType(
    {"gamma": 1.0, "lam": 1.0, "bootstrap_truncated": (False, None), "length_adaptive_lam": 0.0}
)
"""What recipes without a critic fix."""
KL_IN_REWARD = MappingProxyType({"kl_estimator": ("k1", None), "kl_weighted": False, "kl_clip": 0.0})
"""What recipes fix that take the KL off rewards."""
WITHOUT_REFERENCE = MappingProxyType(
    {
        "kl_coef": 0.0,
        "kl_in": ("loss", "token_reward", "sequence_reward"),
        "kl_estimator": (None, "k1", "k2", "k3", "k3+"),
        "ref_eta": 0.0,
        "kl_target": 0.0,
        "kl_horizon": 10_000,
        "kl_weighted": False,
        "kl_clip": 0.0,
    }
)
"""What recipes without a reference fix: without a KL, its place and its estimator say nothing."""


WITHOUT_ADVANTAGES = MappingProxyType(
    {
        **PPO_LOSS,
        **WITHOUT_CLIPPING,
        **WITHOUT_CRITIC,
        **WITHOUT_REFERENCE,
        "num_minibatches": 1,
        "early_stop_kl": 0.0,
        "old": ("rollout", "trainer"),
        "aggregation": "token",
        "baseline": "none",
        "advantage_scale": "none",
        "std": ("population", "sample"),
        "max_draws": 1,
    }
)
"""What recipes without advantages fix; most values say nothing."""


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
class CorrectionConfig:
    """How a loss corrects for a rollout whose log-probabilities or weights are not the trainer's.

    A published combination by its `name`, or each part by itself; a part that is given replaces the name's.
    """

    name: CorrectionName = "none"
    """`tis`: weights by token, up to 2; `sequence-tis`: by response; `sequence-mis`: responses with a weight
    above 2 are left out; `icepop`: tokens with a weight outside of 0.5 to 5 are; `kpop`: tokens with a
    divergence above 0.1 are; `geo-rs`: responses whose mean weight is outside of 0.999 to 1.001 are, without
    weights; `seq-mask-tis`: the same, with weights by token."""
    weight: WeightBy | None = None
    """Whose importance weight a token's loss is multiplied with: the token's own; its response's, the product
    of its tokens' weights or their geometric mean; or none. With `weight: token, cap: 5`, decoupled PPO."""
    cap: float | None = None
    """The largest weight, at least 1; a greater one is truncated."""
    mask: MaskBy | None = None
    """What is compared with `low` and `high` to leave tokens or whole responses out: a weight as above, or
    `binary_kl`, the larger KL divergence of two policies that know the drawn token and any other."""
    low: float | None = None
    """The least weight that stays in the loss."""
    high: float | None = None
    """The largest weight, or divergence, that stays in the loss."""

    def __post_init__(self) -> None:
        require_at_least(1, cap=self.cap)
        require_at_least(0, low=self.low, high=self.high)
        found = self.resolved
        if found.mask == "none" and not (self.low is None and self.high is None):
            raise ValueError("low and high are bounds of a mask: set mask, or leave them out")
        if found.mask == "binary_kl" and self.low is not None:
            raise ValueError("low is a bound of weights, and mask is binary_kl: set high, or leave low out")
        if found.mask != "none" and not found.has_bounds:
            raise ValueError(f"mask: {found.mask} leaves nothing out without a bound: set low or high")
        if found.weight == "none" and self.cap is not None:
            raise ValueError("cap is the largest weight: set weight, or leave it out")
        if found.low > found.high:
            raise ValueError(f"low must be at most high, got {found.low} and {found.high}")

    @property
    def corrects(self) -> bool:
        """Whether there is a weight or a mask."""
        return self.resolved != CORRECTIONS["none"]

    @property
    def resolved(self) -> Correction:
        """The combination of `name`, with the parts that are given."""
        named = CORRECTIONS[self.name]
        return Correction(
            weight=named.weight if self.weight is None else self.weight,
            cap=named.cap if self.cap is None else self.cap,
            mask=named.mask if self.mask is None else self.mask,
            low=named.low if self.low is None else self.low,
            high=named.high if self.high is None else self.high,
        )


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
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    """Weights and masks of tokens, by how likely they are under `old: trainer` compared with the rollout's
    policy."""
    entropy_coef: float = 0.0
    """Weight of the mean entropy, which the loss is lowered by; with `entropy_target`, where it begins."""
    entropy_target: float = 0.0
    """Mean entropy, in nats a token, below which the weight grows by 0.005 a step and above which it falls
    (Skywork-OR1, arXiv:2505.22312); the bonus counts only below. 0 leaves the weight as it is."""
    positive_nll: float = 0.0
    """Weight of learning the responses with a reward above 0, by the mean over their tokens (VAPO: 0.1)."""
    covariance: Literal["none", "clip", "kl"] = "none"
    """Tokens whose likelihood and advantage go together most make the entropy collapse (arXiv:2505.22617):
    leave some of them out of the loss (`clip`, Clip-Cov), or hold them near the old policy (`kl`, KL-Cov)."""
    covariance_share: float = 2e-4
    """Share of a mini-batch's tokens that are so treated."""
    top_entropy: float = 1.0
    """Share of a mini-batch's tokens that the loss has: those with the largest entropy before the update,
    with `old: trainer` (Wang et al. 2025, arXiv:2506.01939: 0.2)."""
    clip_advantages: float = 0.0
    """Largest absolute value of an advantage; 0 sets none."""
    off_policy_mask: float = 0.0
    """Leave out responses with a negative advantage that the policy, while it is trained, has made less
    likely than the rollout had them, by more than this many nats a token (DeepSeek-V3.2, arXiv:2512.02556);
    0 leaves none out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, num_minibatches=self.num_minibatches)
        require_at_least(
            0,
            early_stop_kl=self.early_stop_kl,
            entropy_coef=self.entropy_coef,
            entropy_target=self.entropy_target,
            positive_nll=self.positive_nll,
            clip_advantages=self.clip_advantages,
            off_policy_mask=self.off_policy_mask,
        )
        require_share("covariance_share", self.covariance_share)
        require_share("top_entropy", self.top_entropy)
        if not self.top_entropy:
            raise ValueError("top_entropy: 0 leaves no token in the loss; set a share above 0, or 1 for all")
        if self.covariance != "none" and not self.covariance_share:
            raise ValueError("covariance_share: 0 treats no token; set a share above 0, or covariance=none")
        if self.top_entropy < 1 and self.old == "rollout":
            raise ValueError("top_entropy: the trainer computes entropies with ppo.old=trainer; set it")
        if self.correction.corrects and self.old == "rollout":
            raise ValueError(
                "correction: it compares the trainer's policy with the rollout's; set ppo.old=trainer, or"
                " leave ppo.correction out"
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
class Relative(Section):
    """What the differences of rewards from their group's mean are divided by."""

    advantage_scale: Literal["group_std", "batch_std"] = "group_std"
    """The standard deviation of the group's rewards; or that of the differences of the whole batch, as in
    ScaleRL (arXiv:2510.13786)."""
    std: Literal["population", "sample"] = "population"
    """Whether squares are divided by the number n of samples, or by n - 1, as verl, TRL and OpenRLHF do: for
    groups of 8, advantages are then smaller by 6 %."""


@dataclass(frozen=True, kw_only=True)
class Reference(Section):
    """A policy that the actor is held near."""

    kl_coef: float = 0.001
    """Cost of each nat that the policy moves from the reference; with 0 there is no reference."""
    ref_eta: float = 0.0
    """Share by which the reference follows the actor after each step, as an exponential moving average."""
    kl_target: float = 0.0
    """Divergence, in nats a response, that `kl_coef` is adapted to hold (Ziegler et al. 2019,
    arXiv:1909.08593, section 2.2); 0 leaves it as it is."""
    kl_horizon: int = 10_000
    """Responses over which `kl_coef` may change by a fifth, with `kl_target`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, kl_coef=self.kl_coef, kl_target=self.kl_target)
        require_at_least(1, kl_horizon=self.kl_horizon)
        require_share("ref_eta", self.ref_eta)
        if self.kl_target and not self.kl_coef:
            raise ValueError("kl_target: kl_coef, which it adapts, must be above 0 to begin with")
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
    length_adaptive_lam: float = 0.0
    """With a critic, alpha of VAPO (arXiv:2504.05118: 0.05): advantages of a response of l tokens are
    estimated with `1 - 1 / (alpha * l)`, and `lam` is the critic's alone; 0: with `lam`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_share("gamma", self.gamma)
        require_share("lam", self.lam)
        require_at_least(0, length_adaptive_lam=self.length_adaptive_lam)


@dataclass(frozen=True, kw_only=True)
class CriticSettings(Clipping, Discounting, Reference):
    """PPO's clipping, discounting and reference, as recipes with a critic have them."""
