"""PPO on problems with checkable answers: six calls with a critic, four without.

Without a critic, the rewards of a prompt's samples are taken relative to each other (Shao et al. 2024,
arXiv:2402.03300, section 4.1.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from realrl.algorithms.kl import kl_penalised_rewards
from realrl.algorithms.normalise import group_relative, masked_normalise
from realrl.algorithms.ppo import PolicyLoss, ValueLoss, ppo_policy_loss, value_loss
from realrl.algorithms.schedule import learning_rate
from realrl.api.batch import PackedBatch, cu_seqlens_of
from realrl.api.config import (
    DataConfig,
    GenerationConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainedModelConfig,
)
from realrl.api.graph import Blend, CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Mean, Metrics, ModelSpec, Peak, Recipe, joined
from realrl.datasets.prompts import PromptDataset, load_prompts
from realrl.datasets.stops import ends_by
from realrl.ops.gae import gae
from realrl.rewards.math import grade_all
from realrl.rewards.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The model that estimates values, and how it is trained."""

    model: ModelConfig | None = None
    """Left out, the actor's, with a scalar head in place of its own."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """The algorithm's own numbers."""

    group_size: int = 8
    """Samples of each prompt."""
    num_minibatches: int = 1
    """Optimizer steps a batch."""
    clip_eps: float = 0.2
    """How far the policy's ratio may move from 1."""
    value_clip_eps: float = 0.2
    """How far a value may move from the value at the batch's start."""
    gamma: float = 1.0
    """Discount of a later token's reward."""
    lam: float = 1.0
    """Weight of longer looks ahead in generalised advantage estimation."""
    kl_coef: float = 0.001
    """Cost of each nat that the policy moves from the reference, taken off the reward; with 0 there is no
    reference."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    """How that distance is estimated from the sampled tokens (J. Schulman, "Approximating KL Divergence")."""
    ref_eta: float = 0.0
    """Share by which the reference follows the actor after each step, as an exponential moving average."""
    normalise_advantages: bool = True
    """With a critic, to mean 0 and standard deviation 1 over the batch's tokens; without, rewards are
    divided by the standard deviation among their prompt's samples."""
    reward_correct: float = 1.0
    reward_wrong: float = 0.0

    def __post_init__(self) -> None:
        for name in ("group_size", "num_minibatches"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name in ("clip_eps", "value_clip_eps", "kl_coef"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        for name in ("gamma", "lam", "ref_eta"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        if self.ref_eta and not self.kl_coef:
            raise ValueError(
                "ref_eta needs a reference to follow the actor: set kl_coef above 0, or ref_eta=0"
            )


@dataclass(frozen=True, kw_only=True)
class PPOMathConfig(RunConfig):
    """PPO, or its group-relative form, on problems with checkable answers."""

    experiment: str = "ppo-math"
    allocation: str = "actor_gen:d2,*:p2"
    max_tokens_per_microbatch: int = 512
    actor: TrainedModelConfig = field(
        default_factory=lambda: TrainedModelConfig(optimizer=OptimizerConfig(lr=2e-5))
    )
    ref: ModelConfig | None = None
    """The reference policy; left out, the actor as it was loaded."""
    critic: CriticConfig | None = None
    """Left out, rewards are taken relative to the other samples of the prompt."""
    data: DataConfig = field(default_factory=lambda: DataConfig(chat=False))
    generation: GenerationConfig = field(default_factory=lambda: GenerationConfig(max_new_tokens=8))
    ppo: PPOConfig = field(default_factory=PPOConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ppo.num_minibatches > self.batch_size * self.ppo.group_size:
            raise ValueError(
                f"ppo.num_minibatches must be at most batch_size * ppo.group_size = "
                f"{self.batch_size * self.ppo.group_size}, got {self.ppo.num_minibatches}"
            )
        if self.critic is None and self.ppo.group_size == 1:
            raise ValueError(
                "ppo.group_size must be at least 2 without a critic: give critic: {} or more samples"
            )


ROLLOUT = ("input_ids", "logprobs", "policy_versions", "loss_mask", "ended")
PER_SAMPLE = ("rewards", "ended")


def graph(config: PPOMathConfig) -> DataflowGraph:
    """One step; a key joins its producer to its consumers."""
    scored = ROLLOUT + ("rewards",)
    num_minibatches = config.ppo.num_minibatches
    calls = [
        _actor_gen(config),
        Call("reward", None, CallKind.COMPUTE, ("input_ids", "loss_mask"), ("rewards",)),
    ]
    if config.ppo.kl_coef:
        scored += ("ref_logprobs",)
        calls.append(
            Call("ref_inf", "ref", CallKind.INFERENCE, ("input_ids", "loss_mask"), ("ref_logprobs",))
        )
    if config.critic is not None:
        scored += ("values",)
        calls += [
            Call("critic_inf", "critic", CallKind.INFERENCE, ("input_ids", "loss_mask"), ("values",)),
            Call("critic_train", "critic", CallKind.TRAIN, scored, num_minibatches=num_minibatches),
        ]
    calls.append(Call("actor_train", "actor", CallKind.TRAIN, scored, num_minibatches=num_minibatches))
    eta = config.ppo.ref_eta
    blends = (Blend("actor", "ref", eta),) if eta else ()
    return DataflowGraph(*calls, per_sample=PER_SAMPLE, blends=blends)


def eval_graph(config: PPOMathConfig) -> DataflowGraph:
    """Greedy answers to held-out problems."""
    return DataflowGraph(
        _actor_gen(config),
        Call("reward", None, CallKind.COMPUTE, ("input_ids", "loss_mask"), ("rewards",)),
        per_sample=PER_SAMPLE,
    )


def _actor_gen(config: PPOMathConfig) -> Call:
    generate = CallKind.GENERATE
    return Call("actor_gen", "actor", generate, ("prompts",), ROLLOUT, engine=config.generation.engine)


def models(config: PPOMathConfig) -> dict[str, ModelSpec]:
    specs = {"actor": ModelSpec(config.actor.model, "lm", config.actor.optimizer)}
    if config.ppo.kl_coef:
        specs["ref"] = ModelSpec(config.ref or config.actor.model, "lm")
    if config.critic is not None:
        model = config.critic.model or config.actor.model
        specs["critic"] = ModelSpec(model, "scalar", config.critic.optimizer)
    return specs


def actor_gen(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    config = ctx.config.generation
    if ctx.evaluating:
        config = config.greedy()
    ends = ends_by(config, ctx.tokenizer)
    options = {"seed": ctx.config.seed, "step": ctx.step, "ends": ends}
    options |= {"breaks": ctx.breaks, "progress": ctx.progress}
    return CallOutput(ctx.engine.generate(batch, config, **options))


def reward(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    ppo = ctx.config.ppo
    solutions = [ctx.dataset.solutions(sample.row) for sample in batch.samples]
    responses = [
        ctx.tokenizer.decode(ids[mask], skip_special_tokens=True)
        for ids, mask in zip(batch.unpacked("input_ids"), batch.unpacked("loss_mask"))
    ]
    verdicts = grade_all(responses, solutions)
    rewards = [ppo.reward_correct if v is Verdict.CORRECT else ppo.reward_wrong for v in verdicts]
    metrics = {
        "greedy_accuracy" if ctx.evaluating else "accuracy": Mean(
            verdicts.count(Verdict.CORRECT), len(batch)
        ),
        "reward": Mean(sum(rewards), len(batch)),
        "response_tokens": Mean(float(batch["loss_mask"].sum()), len(batch)),
    }
    records = [
        {
            "prompt": ctx.dataset.prompt(sample.row),
            "response": response,
            "solutions": accepted,
            "verdict": verdict.value,
            "reward": value,
        }
        for sample, response, accepted, verdict, value in zip(
            batch.samples, responses, solutions, verdicts, rewards
        )
    ]
    return CallOutput(batch.with_keys(per_sample={"rewards": torch.tensor(rewards)}), metrics, records)


def ref_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    logprobs = ctx.engine.logprobs(batch, temperature=ctx.config.generation.training_temperature)
    return (
        CallOutput() if logprobs is None else CallOutput(batch.with_keys(tokens={"ref_logprobs": logprobs}))
    )


def critic_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    values = ctx.engine.values(batch)
    return CallOutput() if values is None else CallOutput(batch.with_keys(tokens={"values": values}))


def actor_train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    config, ppo = ctx.config, ctx.config.ppo
    metrics = _staleness(ctx, batch)
    if ppo.kl_coef:
        metrics |= {"kl_to_ref": _mean(batch["logprobs"] - batch["ref_logprobs"], batch)}
    for index, minibatch in enumerate(_minibatches(config, _with_advantages(ctx, batch))):
        num_tokens = int(ctx.reduce(minibatch["loss_mask"].sum()))

        def loss(logprobs: Tensor, micro: PackedBatch, index: int = index, num_tokens: int = num_tokens):
            result = ppo_policy_loss(
                logprobs,
                micro["logprobs"],
                micro["advantages"],
                micro["loss_mask"],
                clip_eps=ppo.clip_eps,
                num_tokens=num_tokens,
            )
            found = _metrics(result, num_tokens, micro) | {"entropy": _mean(micro["entropy"], micro)}
            return result.loss, found if index else found | _disagreement(logprobs, micro)

        lr = _learning_rate(ctx, config.actor.optimizer, index)
        temperature = config.generation.training_temperature
        found = ctx.engine.train_logprobs(minibatch, loss, lr=lr, temperature=temperature)
        metrics = joined(metrics, _named("actor_", found))
    return CallOutput(metrics=metrics)


def critic_train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    config, ppo = ctx.config, ctx.config.ppo
    metrics: Metrics = {}
    for index, minibatch in enumerate(_minibatches(config, _with_advantages(ctx, batch))):
        num_tokens = int(ctx.reduce(minibatch["loss_mask"].sum()))

        def loss(values: Tensor, micro: PackedBatch, num_tokens: int = num_tokens):
            result = value_loss(
                values.roll(1),
                micro["values"].roll(1),
                micro["returns"],
                micro["loss_mask"],
                clip_eps=ppo.value_clip_eps,
                num_tokens=num_tokens,
            )
            return result.loss, _metrics(result, num_tokens, micro)

        lr = _learning_rate(ctx, config.critic.optimizer, index)
        metrics = joined(metrics, _named("critic_", ctx.engine.train_values(minibatch, loss, lr=lr)))
    return CallOutput(metrics=metrics)


def _with_advantages(ctx: CallContext, batch: PackedBatch) -> PackedBatch:
    """The batch with `advantages` and `returns`, both `[T]` and 0 outside the responses."""
    ppo = ctx.config.ppo
    mask = batch["loss_mask"]
    cu_responses = cu_seqlens_of(int(part.sum()) for part in batch.unpacked("loss_mask"))
    token_rewards = kl_penalised_rewards(
        _task_rewards(ctx, batch),
        batch["logprobs"],
        batch["ref_logprobs"] if ppo.kl_coef else batch["logprobs"],
        mask,
        batch.cu_seqlens,
        kl_coef=ppo.kl_coef,
        estimator=ppo.kl_estimator,
    )
    advantages, returns = gae(
        token_rewards[mask],
        _state_values(batch),
        cu_responses,
        ~batch["ended"],
        gamma=ppo.gamma,
        lam=ppo.lam,
    )
    advantages, returns = _spread(advantages, mask), _spread(returns, mask)
    if ctx.config.critic is not None and ppo.normalise_advantages:
        advantages = masked_normalise(advantages, mask, ctx.reduce)
    return batch.with_keys(tokens={"advantages": advantages, "returns": returns})


def _task_rewards(ctx: CallContext, batch: PackedBatch) -> Tensor:
    """`[B]`: as given with a critic, else relative to the prompt's other samples."""
    config = ctx.config
    if config.critic is not None:
        return batch["rewards"]
    groups = torch.tensor([s.id // config.ppo.group_size for s in batch.samples], dtype=torch.long)
    return group_relative(
        batch["rewards"], groups, config.batch_size, ctx.reduce, normalise_std=config.ppo.normalise_advantages
    )


def _state_values(batch: PackedBatch) -> Tensor:
    """The value before each response token and after the last: `[T_response + B]`, 0 without a critic."""
    mask = batch["loss_mask"]
    in_state = mask | mask.roll(-1)
    if "values" in batch.tokens:
        return batch["values"][in_state]
    return torch.zeros(int(in_state.sum()))


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """`[T_response] -> [T]`, 0 outside the mask."""
    return torch.zeros(len(mask)).masked_scatter(mask, values)


def _minibatches(config: PPOMathConfig, batch: PackedBatch) -> list[PackedBatch]:
    """This rank's part of each mini-batch; which sample goes where does not depend on the plan."""
    num, total = config.ppo.num_minibatches, config.batch_size * config.ppo.group_size
    chosen = [
        [i for i, s in enumerate(batch.samples) if s.id * num // total == index] for index in range(num)
    ]
    return [batch.select(indices) for indices in chosen]


def _learning_rate(ctx: CallContext, optimizer: OptimizerConfig, index: int) -> float:
    num = ctx.config.ppo.num_minibatches
    return learning_rate(optimizer, ctx.step * num + index, ctx.config.num_steps * num)


def _staleness(ctx: CallContext, batch: PackedBatch) -> dict[str, Mean | Peak]:
    """Training steps between the weights that drew a token and those that are trained on it."""
    staleness = (ctx.step - batch["policy_versions"]) * batch["loss_mask"]
    return {
        "staleness": _mean(staleness, batch),
        "staleness_max": Peak(float(staleness.max()) if len(staleness) else 0.0),
    }


def _disagreement(logprobs: Tensor, micro: PackedBatch) -> Metrics:
    """How far the trainer's log-probabilities are from the rollout's before the weights change: rounding."""
    differences = (logprobs.detach() - micro["logprobs"]).abs() * micro["loss_mask"]
    return {
        "logprob_diff": _mean(differences, micro),
        "logprob_diff_max": Peak(float(differences.max()) if len(differences) else 0.0),
    }


def _mean(values: Tensor, batch: PackedBatch) -> Mean:
    """Over the response tokens."""
    mask = batch["loss_mask"]
    return Mean(float(values.detach()[mask].sum()), float(mask.sum()))


def _metrics(result: PolicyLoss | ValueLoss, num_tokens: int, micro: PackedBatch) -> dict[str, Mean]:
    """Each field of a micro-batch's result, as its mean over tokens."""
    weight = float(micro["loss_mask"].sum())
    return {name: Mean(float(value.detach()) * num_tokens, weight) for name, value in vars(result).items()}


def _named(prefix: str, metrics: Metrics) -> Metrics:
    return {prefix + name: metric for name, metric in metrics.items()}


def datasets(config: PPOMathConfig, tokenizer) -> tuple[PromptDataset, PromptDataset | None]:
    """The training prompts, and the held-out ones if there are any."""
    data = config.data
    options = {"max_prompt_tokens": data.max_prompt_tokens, "chat": data.chat}
    train = load_prompts(data.path, tokenizer, eval=False, **options)
    held_out_path = data.held_out_path
    held_out = load_prompts(held_out_path, tokenizer, eval=True, **options) if held_out_path else None
    return train, held_out


def validate(config: PPOMathConfig, decoders: Mapping[str, Any]) -> None:
    if config.ppo.ref_eta and replace(decoders["ref"], eos_token_ids=()) != replace(
        decoders["actor"], eos_token_ids=()
    ):
        raise ValueError(
            "ppo.ref_eta: the reference can follow only an actor of its own architecture; leave out ref, or"
            " set ppo.ref_eta=0"
        )


PPO_MATH = Recipe(
    name="ppo-math",
    default_config=PPOMathConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: config.ppo.group_size,
    datasets=datasets,
    validate=validate,
    bodies={
        "actor_gen": actor_gen,
        "reward": reward,
        "ref_inf": ref_inf,
        "critic_inf": critic_inf,
        "actor_train": actor_train,
        "critic_train": critic_train,
    },
)
