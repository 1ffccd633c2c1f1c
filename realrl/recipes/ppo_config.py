"""What can be set of `ppo-math` and of the algorithms that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from realrl.algorithms.choices import Aggregation, Estimator, Importance, Level, Surrogate
from realrl.api.config import (
    GenerationConfig,
    ModelConfig,
    OptimizerConfig,
    TrainedModelConfig,
    TrainingConfig,
)
from realrl.api.data import GYM_PREFIX, DataConfig
from realrl.base.require import require_at_most
from realrl.rewards.functions import GYM, LARGEST_REWARD, MATH, MODEL, weights_of


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The model that estimates values, and how it is trained."""

    model: ModelConfig | None = None
    """Left out, the actor's, with a scalar head in place of its own."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    num_minibatches: int | None = None
    """Optimizer steps a batch; left out, `ppo.num_minibatches`."""
    clip_eps: float = 0.2
    """How far a value may move from the value at the batch's start; 0 sets no bound."""
    normalise: Literal["none", "exponential", "moving"] = "none"
    """Train values in units of the returns' running mean and standard deviation: of all steps, the latest
    counting most, or alike."""
    normalise_beta: float = 0.99995
    """How much less a step counts than the next one, with `exponential`."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_minibatches")
        _at_least(self, 0, "clip_eps")
        if not 0 <= self.normalise_beta < 1:
            raise ValueError(f"normalise_beta must be in [0, 1), got {self.normalise_beta}")


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """How a response's check becomes its reward."""

    correct: float = 1.0
    """Reward of a right answer."""
    wrong: float = 0.0
    """Reward of a wrong answer, or of none."""
    ungraded: float | None = None
    """Reward of a response whose check took too long or broke, which says nothing about the response. Left
    out, the response takes no part in the step; the metric `ungraded` counts such responses."""
    convert_units: bool = True
    """Whether `math` takes 100 cm for 1 m; without, the units of an answer are those of its solution."""
    bias: float = 0.0
    """Added to each reward."""
    scale: float = 1.0
    """By which each is multiplied then."""
    clip: float = 0.0
    """Largest absolute value of a reward after that; 0 sets none."""
    overlong_tokens: int = 0
    """A response of as many tokens less than `generation.max_new_tokens`, or more, begins to lose reward."""
    overlong_penalty: float = 1.0
    """What one of `generation.max_new_tokens` loses."""
    truncated: Literal["graded", "wrong", "left_out"] = "graded"
    """A response cut off at `generation.max_new_tokens` is rewarded as graded; counts as wrong, for rewards
    and for accuracy; or is left out of the step and of its group's baseline. As wrong, it gets `wrong` from
    `math` and `gym`, and in all no more than that, whatever a reward model or functions say."""

    def __post_init__(self) -> None:
        _at_least(self, 0, "clip", "overlong_tokens", "overlong_penalty")
        for name in ("correct", "wrong", "ungraded", "bias", "scale"):
            value = getattr(self, name)
            if value is not None and abs(value) > LARGEST_REWARD:
                bounds = f"from {-LARGEST_REWARD:g} to {LARGEST_REWARD:g}"
                raise ValueError(f"{name} must be {bounds}, got {value}")


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """The algorithm's own numbers."""

    group_size: int = 8
    """Samples of each prompt."""
    max_draws: int = 1
    """Prompts tried in one place of a batch: one whose responses are all right or all wrong teaches nothing
    and gives way to another. In a place where all are, nothing is trained on; with 1, none gives way."""
    num_minibatches: int = 1
    """Optimizer steps a batch."""
    clip_eps: float = 0.2
    """How far the policy's ratio may fall below 1, and rise above it."""
    clip_eps_high: float | None = None
    """How far it may rise, if not as far as it may fall."""
    dual_clip: float = 0.0
    """Largest ratio that counts where the advantage is negative, above 1; 0 sets none."""
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
    ratio: Level = "token"
    """Whose ratio: each token's own, or the geometric mean over its response."""
    surrogate: Surrogate = "ppo"
    """What is maximised: the clipped ratio times the advantage, or with `cispo` the token's log-probability,
    weighted by both."""
    aggregation: Aggregation = "token"
    """Of tokens into the loss: the mean over all of them, over the responses of each one's mean, or by the
    constant `generation.max_new_tokens` for each response."""
    baseline: Literal["group_mean", "leave_one_out", "none"] = "group_mean"
    """Without a critic, what is taken off a response's reward: the mean of its prompt's responses, or of the
    others of them."""
    advantage_scale: Literal["group_std", "batch", "none"] | None = None
    """What advantages are divided by: the (population) standard deviation of the rewards of a prompt's
    responses; or, less their mean, that over the batch's tokens. Left out, `batch` with a critic or without a
    baseline, else `group_std`."""
    gamma: float = 1.0
    """Discount of a later token's reward."""
    lam: float = 1.0
    """Weight of longer looks ahead in generalised advantage estimation, with a critic."""
    bootstrap_truncated: bool | None = None
    """With a critic, a response cut off at `generation.max_new_tokens` goes on with the value of its last
    state, as AReaL has it, and not with nothing, as verl, OpenRLHF and TRL have it. Left out, true, unless
    `scores.truncated: wrong` says what such a response is worth."""
    kl_coef: float = 0.001
    """Cost of each nat that the policy moves from the reference; with 0 there is no reference."""
    kl_in: Literal["token_reward", "sequence_reward", "loss"] = "token_reward"
    """Where it is paid: by each token's reward, by the response's before the baseline is taken off, or by the
    loss."""
    kl_estimator: Estimator | None = None
    """How that distance is estimated from the sampled tokens (J. Schulman, "Approximating KL Divergence").
    Left out, `k1` in rewards and `k3` in the loss, where the gradient of `k1` is zero on average."""
    ref_eta: float = 0.0
    """Share by which the reference follows the actor after each step, as an exponential moving average."""
    early_stop_kl: float = 0.0
    """End a batch's optimizer steps when a mini-batch finds the policy further, in nats a token, from the
    policy of `old`. It is looked at before that mini-batch's step, which is not made. 0 never ends them."""

    def __post_init__(self) -> None:
        _at_least(self, 1, "group_size", "max_draws", "num_minibatches", "importance_cap")
        require_at_most(self, 2**16, "group_size")
        require_at_most(self, 1000, "max_draws")
        _at_least(self, 0, "clip_eps", "clip_eps_high", "kl_coef", "early_stop_kl")
        if self.dual_clip and self.dual_clip <= 1:
            raise ValueError(f"dual_clip must be above 1, or 0 for none, got {self.dual_clip}")
        for name in ("clip_eps", "clip_eps_high"):
            if self.surrogate == "ppo" and getattr(self, name) == 0:
                raise ValueError(
                    f"{name} must be above 0 with ppo.surrogate=ppo, got 0: no ratio could move at all; a"
                    " large one, as 1e9, sets no bound"
                )
        if self.importance != "none" and self.old == "rollout":
            raise ValueError(
                f"importance: {self.importance} weighs the trainer's policy against the rollout's; set"
                " ppo.old=trainer, or ppo.importance=none"
            )
        if self.kl_coef and self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator: the gradient of k1 in the loss is zero on average, so it regularises nothing;"
                " use k3 or k2, or leave it out"
            )
        for name in ("gamma", "lam", "ref_eta"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        if self.ref_eta and not self.kl_coef:
            raise ValueError(
                "ref_eta needs a reference to follow the actor: set kl_coef above 0, or ref_eta=0"
            )

    @property
    def clip_high(self) -> float:
        return self.clip_eps if self.clip_eps_high is None else self.clip_eps_high

    @property
    def estimator(self) -> Estimator:
        """The estimator of the KL to the reference."""
        return self.kl_estimator or ("k3" if self.kl_in == "loss" else "k1")


@dataclass(frozen=True, kw_only=True)
class PPOMathConfig(TrainingConfig):
    """PPO, or one of its critic-free relatives, on problems with checkable answers."""

    experiment: str = "ppo-math"
    actor: TrainedModelConfig = field(
        default_factory=lambda: TrainedModelConfig(optimizer=OptimizerConfig(lr=1e-6))
    )
    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    critic: CriticConfig | None = None
    """Left out, rewards are taken relative to the other samples of the prompt."""
    data: DataConfig = field(default_factory=DataConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    reward: str | dict[str, float] = MATH
    """What rewards a response: `math`, the verifier, by `scores`; `gym`, the task's own scorer, also by
    `scores`, in part where the answer is right in part; `model`, the reward model; a function of Python code
    as `path/to/file.py:function`, called with a prompt, a response and the solutions, which returns a number,
    or None where it has no opinion: that response takes no part in the step; or several, each with its
    weight."""
    reward_model: ModelConfig | None = None
    """One that `rw` trained, for the reward `model`."""
    scores: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (MODEL in weights_of(self.reward)) != (self.reward_model is not None):
            raise ValueError(
                "reward_model is for the reward `model`: give both, as reward=model reward_model.path=FOLDER,"
                " or neither"
            )
        paths = filter(None, (self.data.path, self.data.held_out_path))
        if GYM in weights_of(self.reward) and not all(path.startswith(GYM_PREFIX) for path in paths):
            raise ValueError(
                "reward: `gym` is for tasks of reasoning-gym alone; set data.path=gym:TASK, and"
                " data.eval_path to such ones or ''"
            )
        ppo, num_samples = self.ppo, self.batch_size * self.ppo.group_size
        for name, number in (("ppo", ppo.num_minibatches), ("critic", self.critic_minibatches)):
            if number > num_samples:
                raise ValueError(
                    f"{name}.num_minibatches must be at most batch_size * ppo.group_size = {num_samples}, got"
                    f" {number}"
                )
        if self.critic is None and ppo.baseline != "none" and ppo.group_size == 1:
            raise ValueError(
                "ppo.group_size must be at least 2 without a critic: give critic: {}, more samples, or"
                " ppo.baseline=none"
            )
        if ppo.max_draws > 1 and ppo.group_size == 1:
            raise ValueError(
                "ppo.max_draws: responses to a prompt are compared, so ppo.group_size must be at least 2; or"
                " set ppo.max_draws=1"
            )
        self._check_advantages()
        if ppo.ratio == "sequence" and ppo.old == "rollout" and self.generation.engine != "realrl":
            raise ValueError(
                f"ppo.ratio: sequence compares mean log-probabilities of responses to within {ppo.clip_eps:g}"
                f" (ppo.clip_eps), and those of generation.engine={self.generation.engine} differ from the"
                " trainer's by more; set ppo.old=trainer, or generation.engine=realrl"
            )
        if self.scores.overlong_tokens > self.generation.max_new_tokens:
            raise ValueError(
                f"scores.overlong_tokens must be at most generation.max_new_tokens="
                f"{self.generation.max_new_tokens}, got {self.scores.overlong_tokens}"
            )

    def _check_advantages(self) -> None:
        """Refuse settings of the advantages that do nothing, or not what they say."""
        ppo, has_critic = self.ppo, self.critic is not None
        if has_critic and ppo.advantage_scale == "group_std":
            raise ValueError("ppo.advantage_scale: group_std is for runs without a critic; use batch or none")
        if not has_critic and ppo.baseline == "none" and ppo.advantage_scale == "group_std":
            raise ValueError(
                "ppo.advantage_scale: group_std divides differences from a group's baseline, and ppo.baseline"
                " is none; use batch or none, or set ppo.baseline=group_mean"
            )
        if not has_critic and ppo.lam < 1:
            raise ValueError(
                f"ppo.lam: without a critic, lam={ppo.lam:g} would discount a response's reward by"
                " lam ** (its length - t); set ppo.lam=1, give critic: {}, or discount by ppo.gamma"
            )
        if not has_critic and ppo.bootstrap_truncated:
            raise ValueError(
                "ppo.bootstrap_truncated: true takes the critic's value of a response's last state; give"
                " critic: {}, or leave it out"
            )

    @property
    def critic_minibatches(self) -> int:
        return (self.critic and self.critic.num_minibatches) or self.ppo.num_minibatches

    @property
    def advantage_scale(self) -> str:
        """What advantages are divided by."""
        in_groups = self.critic is None and self.ppo.baseline != "none"
        return self.ppo.advantage_scale or ("group_std" if in_groups else "batch")

    @property
    def bootstraps_truncated(self) -> bool:
        """Whether a truncated response's return goes on with the value of its last state."""
        given = self.ppo.bootstrap_truncated
        return self.scores.truncated != "wrong" if given is None else given


def _at_least(config: object, least: float, *names: str) -> None:
    for name in names:
        if (value := getattr(config, name)) is not None and value < least:
            wanted = "must not be negative" if least == 0 else f"must be at least {least}"
            raise ValueError(f"{name} {wanted}, got {value}")
