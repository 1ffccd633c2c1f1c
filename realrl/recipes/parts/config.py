"""The config of a recipe that trains a policy on its own rewarded responses, less its algorithm's keys."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from realrl.api.config import (
    FixedKey,
    GenerationConfig,
    ModelConfig,
    OptimizerConfig,
    Section,
    TrainedModelConfig,
    TrainingConfig,
)
from realrl.api.data import GYM_PREFIX, DataConfig
from realrl.api.evals import EvalConfig, check_evals
from realrl.recipes.parts.settings import (
    CriticSettings,
    Sampling,
    Updates,
    require_at_least,
    require_share,
)
from realrl.rewards.functions import FORMAT, GYM, JUDGE, LARGEST_REWARD, MATH, MODEL, weights_of
from realrl.rewards.judge_config import JudgeConfig
from realrl.verifier.forms import ANYWHERE, AnswerForm, form_of
from realrl.verifier.leniency import Leniency


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
    lam: float | None = None
    """Weight of longer looks ahead in the returns that the critic learns; left out, `ppo.lam`. With 1, as in
    VC-PPO and VAPO, it learns what was earned."""
    warmup_steps: int = 0
    """First steps of the run, in which the critic is trained and the policy is not."""
    normalise: Literal["none", "exponential", "moving"] = "none"
    """Train values in units of the returns' running mean and standard deviation: of all steps, the latest
    counting most, or alike."""
    normalise_beta: float = 0.99995
    """How much less a step counts than the next one, with `exponential`."""

    def __post_init__(self) -> None:
        require_at_least(1, num_minibatches=self.num_minibatches)
        require_at_least(0, clip_eps=self.clip_eps, warmup_steps=self.warmup_steps)
        if self.lam is not None:
            require_share("lam", self.lam)
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
    form: str = "any"
    """Where an answer counts: `any`, anywhere; `box`, in a box only; `tags`, in `<answer>` after `</think>`;
    the forms of published graders, `deepscaler`, `orz` and `dapo`; or settings, as `tagged=true,place=box`,
    of `ended`, `after_thought`, `tagged`, `place`, `phrase` and `last_chars`. The reward `format` is 1 for a
    response in this form, right or wrong."""
    answer_digits: int = 6
    """Significant digits from which a decimal answer stands for a number with more: with 2, 0.33 for 1/3."""
    convert_units: bool = True
    """Whether `math` takes 100 cm for 1 m; without, the units of an answer are those of its solution."""
    normalise: bool = False
    """Take the reward model's scores less their mean and in units of their standard deviation, over its last
    hundred training steps or so, which `rw` writes to `scores.json` next to its weights."""
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
        Leniency(convert_units=self.convert_units, answer_digits=self.answer_digits)
        form_of(self.form)
        require_at_least(
            0, clip=self.clip, overlong_tokens=self.overlong_tokens, overlong_penalty=self.overlong_penalty
        )
        rewards = {
            "correct": self.correct,
            "wrong": self.wrong,
            "ungraded": self.ungraded,
            "bias": self.bias,
            "scale": self.scale,
        }
        for name, value in rewards.items():
            if value is not None and abs(value) > LARGEST_REWARD:
                bounds = f"from {-LARGEST_REWARD:g} to {LARGEST_REWARD:g}"
                raise ValueError(f"{name} must be {bounds}, got {value}")

    @property
    def answer_form(self) -> AnswerForm:
        """Where an answer counts."""
        return form_of(self.form)

    @property
    def leniency(self) -> Leniency:
        """What an answer may do without being wrong."""
        return Leniency(convert_units=self.convert_units, answer_digits=self.answer_digits)


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(TrainingConfig, Section):
    """A policy that learns from rewards of its own responses."""

    FIXED = MappingProxyType(
        {
            "critic": FixedKey((None,), "recipes ppo and ppo-math have a critic"),
            "ref": FixedKey((None,), "recipes with ppo.kl_coef have a reference, as grpo"),
        }
    )

    actor: TrainedModelConfig = field(
        default_factory=lambda: TrainedModelConfig(optimizer=OptimizerConfig(lr=1e-6))
    )
    data: DataConfig = field(default_factory=DataConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    evals: dict[str, EvalConfig] = field(default_factory=dict)
    """Sets of problems to evaluate on, each under a name of its own, in addition to the held-out rows of
    `data`, which are the set `held_out`."""
    ppo: Sampling = field(default_factory=Sampling)
    """The algorithm's own numbers."""
    reward: str | dict[str, float] = MATH
    """What rewards a response: `math`, the verifier, by `scores`; `gym`, the task's own scorer, also by
    `scores`, in part where the answer is right in part; `format`, whether a response has the form of
    `scores.form`; `model`, the reward model; `judge`, a language model behind a URL; a function of Python
    code as `path/to/file.py:function`, called as `f(prompt, response, solutions)`, `f(sample)` or
    `f(samples)`, which returns a number, or None where it has no opinion: that response takes no part in the
    step; or several, each with its weight."""
    reward_model: ModelConfig | None = None
    """One that `rw` trained, for the reward `model`."""
    judge: JudgeConfig | None = None
    """The language model of the reward `judge`."""
    scores: ScoreConfig = field(default_factory=ScoreConfig)

    @property
    def has_critic(self) -> bool:
        """Whether a critic says what a state is worth."""
        return False

    @property
    def reward_names(self) -> tuple[str, ...]:
        """Every reward that some row has, each once: first those of `reward`, then those of sets."""
        names = dict.fromkeys(weights_of(self.reward))
        for source in self.data.sets:
            names.update(dict.fromkeys(self.weights_for(source)))
        return tuple(names)

    def weights_for(self, source: str) -> dict[str, float]:
        """Return the rewards of the rows of a source, each with its weight."""
        own = self.data.reward_of(source)
        return weights_of(self.reward if own is None else own)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_evals(self.evals, self.data)
        self._check_reward()
        self._check_sizes()

    def _check_reward(self) -> None:
        names = self.reward_names
        if FORMAT in names and self.scores.answer_form == ANYWHERE:
            raise ValueError(
                "reward: `format` rewards the form of an answer: say by scores.form which, or leave it out"
            )
        if self.scores.answer_form != ANYWHERE and not {MATH, FORMAT} & set(names):
            raise ValueError(
                "scores.form: it is for the rewards `math` and `format`; give one of them, or leave it out"
            )
        if (MODEL in names) != (self.reward_model is not None):
            raise ValueError(
                "reward_model is for the reward `model`: give both, as reward=model reward_model.path=FOLDER,"
                " or neither"
            )
        if (JUDGE in names) != (self.judge is not None):
            raise ValueError(
                "judge is for the reward `judge`: give both, as reward=judge judge.url=http://host:8000/v1"
                " judge.model=NAME judge.prompt=FILE, or neither"
            )
        if self.judge is not None and self.judge.longest_s >= self.call_timeout_s:
            raise ValueError(
                f"judge: a question may take {self.judge.longest_s:g} s, which is judge.timeout_s ="
                f" {self.judge.timeout_s:g} for each of {1 + self.judge.retries} tries and each wait between"
                f" them, and call_timeout_s is {self.call_timeout_s:g}; lower judge.timeout_s or"
                " judge.retries, or raise call_timeout_s"
            )
        if self.scores.normalise and self.reward_model is None:
            raise ValueError(
                "scores.normalise: it is for the scores of a reward model; give one, as reward=model"
                " reward_model.path=FOLDER, or leave it out"
            )
        paths = list(filter(None, (*self.data.paths, self.data.held_out_path)))
        paths += [each.path for each in self.evals.values()]
        if GYM in weights_of(self.reward) and not all(path.startswith(GYM_PREFIX) for path in paths):
            raise ValueError(
                "reward: `gym` is for tasks of reasoning-gym alone; set data.path=gym:TASK, and"
                " data.eval_path to such ones or '', and give evals such paths"
            )

    def _check_sizes(self) -> None:
        if self.scores.overlong_tokens > self.generation.max_new_tokens:
            raise ValueError(
                f"scores.overlong_tokens must be at most generation.max_new_tokens="
                f"{self.generation.max_new_tokens}, got {self.scores.overlong_tokens}"
            )


@dataclass(frozen=True, kw_only=True)
class AdvantageConfig(PolicyConfig):
    """A policy that is updated by the advantages of its own responses."""

    ppo: Updates = field(default_factory=Updates)
    advantage: str | None = None
    """Another estimator of advantages than the recipe's: `grpo`, `dr-grpo`, `rloo`, `reinforce`; `gdpo`,
    which normalises each of several rewards in its group before they are summed (arXiv:2601.05242); with a
    critic `gae`; or a function of Python code as `path/to/file.py:function`, called with what a step's
    samples earned (`realrl.algorithms.advantages.Scored`)."""
    loss: str | None = None
    """Another loss of the policy than the recipe's: a function of Python code as `path/to/file.py:function`,
    called with a micro-batch's response tokens (`realrl.algorithms.policy.ResponseTokens`), which returns the
    loss of each."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minibatches("ppo", self.ppo.num_minibatches)

    def _check_minibatches(self, section: str, number: int) -> None:
        num_samples = self.batch_size * self.ppo.group_size
        if number > num_samples:
            raise ValueError(
                f"{section}.num_minibatches must be at most batch_size * ppo.group_size = {num_samples}, got"
                f" {number}"
            )


@dataclass(frozen=True, kw_only=True)
class CriticPolicyConfig(AdvantageConfig):
    """A policy whose advantages may be those of a critic."""

    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    critic: CriticConfig | None = None
    """Left out, rewards are taken relative to the other samples of the prompt."""
    ppo: CriticSettings = field(default_factory=CriticSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_minibatches("critic", self.critic_minibatches)
        warmup_steps = 0 if self.critic is None else self.critic.warmup_steps
        if self.num_steps and warmup_steps >= self.num_steps:
            raise ValueError(
                f"critic.warmup_steps: in all {self.num_steps} steps the policy would not be trained; set"
                " fewer, or raise num_steps"
            )

    @property
    def has_critic(self) -> bool:
        """Whether a critic says what a state is worth."""
        return self.critic is not None

    @property
    def present_critic(self) -> CriticConfig:
        """The critic of a run that has one, as every run with a critic's calls does."""
        assert self.critic is not None, "only a run with a critic has its calls"
        return self.critic

    @property
    def critic_lam(self) -> float:
        """The weight of longer looks ahead in the returns that the critic learns."""
        own = None if self.critic is None else self.critic.lam
        return self.ppo.lam if own is None else own

    @property
    def critic_minibatches(self) -> int:
        """Optimizer steps of the critic in a batch."""
        own = None if self.critic is None else self.critic.num_minibatches
        return own or self.ppo.num_minibatches

    @property
    def scales_over_batch(self) -> bool:
        """Whether advantages are divided by their standard deviation over the batch's tokens."""
        return True


@dataclass(frozen=True, kw_only=True)
class GroupConfig(AdvantageConfig):
    """A policy that learns from rewards relative to those of its other responses to a prompt."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ppo.group_size == 1:
            raise ValueError(
                "ppo.group_size must be at least 2: rewards are compared with those of the prompt's other"
                " responses; raise it, or take a recipe with a critic (ppo) or without a baseline"
                " (reinforce-pp)"
            )
