"""PPO on problems with checkable answers: six calls with a critic, four without.

Without a critic, the rewards of a prompt's samples are taken relative to each other (Shao et al. 2024,
arXiv:2402.03300, section 4.1.1). The algorithms that differ from it in numbers alone are in `variants`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from realrl.algorithms.aggregate import token_weights
from realrl.algorithms.kl import kl_estimate, kl_penalised_rewards
from realrl.algorithms.learning_rate import learning_rate
from realrl.algorithms.normalise import group_relative, masked_normalise
from realrl.algorithms.policy import PolicyLoss, importance_weights, policy_loss
from realrl.algorithms.running import RunningMoments
from realrl.algorithms.value import value_loss
from realrl.api.batch import PackedBatch, cu_seqlens_of
from realrl.api.config import OptimizerConfig
from realrl.api.graph import Blend, CallKind, DataflowGraph, Redraw
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Criterion, Mean, Metrics, ModelSpec, Recipe, joined
from realrl.datasets.end_tokens import stopping
from realrl.datasets.prompts import PromptDataset, load_prompts
from realrl.datasets.stop_rules import ends_by
from realrl.ops.gae import gae
from realrl.recipes.grading import groups_of, response_lengths, reward, takes_part
from realrl.recipes.pairs import scores_at_ends
from realrl.recipes.ppo_config import PPOMathConfig
from realrl.recipes.ppo_report import (
    Drift,
    importance_metrics,
    mean_of,
    mean_over,
    named,
    share_of,
    staleness_metrics,
)
from realrl.recipes.sample_records import advantage_records
from realrl.recipes.symptoms import policy_symptoms
from realrl.recipes.verdict_watch import watch_verdicts
from realrl.rewards.functions import GYM, MATH, MODEL, load_function, weights_of

ROLLOUT = ("input_ids", "logprobs", "policy_versions", "loss_mask", "ended")
GRADED = ("rewards", "is_graded")

RESPONSE = ("input_ids", "loss_mask")
LOGPROB_NOISE = {"float32": 1e-4, "bfloat16": 0.1}
"""Root mean square that two engines' log-probabilities of a token may differ by on equal weights, by the type
of the weights: twice what was measured of vLLM and a trainer. What is nearer cannot be told apart."""


def graph(config: PPOMathConfig) -> DataflowGraph:
    """One step; a key joins its producer to its consumers."""
    scored = ROLLOUT + GRADED
    ppo = config.ppo
    calls = [_actor_gen(config), *_rewards(config)]
    if ppo.kl_coef:
        scored += ("ref_logprobs",)
        calls.append(Call("ref_inf", "ref", CallKind.INFERENCE, RESPONSE, ("ref_logprobs",)))
    if config.critic is not None:
        scored += ("values",)
        calls += [
            Call("critic_inf", "critic", CallKind.INFERENCE, RESPONSE, ("values",)),
            Call("critic_train", "critic", CallKind.TRAIN, scored, num_minibatches=config.critic_minibatches),
        ]
    if ppo.old == "trainer":
        calls.append(Call("prox_inf", "actor", CallKind.INFERENCE, RESPONSE, ("prox_logprobs",)))
        scored += ("prox_logprobs",)
    calls.append(Call("actor_train", "actor", CallKind.TRAIN, scored, num_minibatches=ppo.num_minibatches))
    blends = (Blend("actor", "ref", ppo.ref_eta),) if ppo.ref_eta else ()
    redraw = Redraw("reward", ppo.max_draws) if ppo.max_draws > 1 else None
    return DataflowGraph(*calls, per_sample=_per_sample(config), blends=blends, redraw=redraw)


def eval_graph(config: PPOMathConfig) -> DataflowGraph:
    """Greedy answers to held-out problems."""
    return DataflowGraph(_actor_gen(config), *_rewards(config), per_sample=_per_sample(config))


def _per_sample(config: PPOMathConfig) -> tuple[str, ...]:
    scores = () if config.reward_model is None else ("scores",)
    return ("ended", *scores, *GRADED)


def _actor_gen(config: PPOMathConfig) -> Call:
    generate = CallKind.GENERATE
    return Call("actor_gen", "actor", generate, ("prompts",), ROLLOUT, engine=config.generation.engine)


def _rewards(config: PPOMathConfig) -> list[Call]:
    if config.reward_model is None:
        return [Call("reward", None, CallKind.COMPUTE, (*RESPONSE, "ended"), GRADED)]
    return [
        Call("reward_inf", "reward", CallKind.INFERENCE, RESPONSE, ("scores",)),
        Call("reward", None, CallKind.COMPUTE, (*RESPONSE, "ended", "scores"), GRADED),
    ]


def models(config: PPOMathConfig) -> dict[str, ModelSpec]:
    specs = {"actor": ModelSpec(config.actor.model, "lm", config.actor.optimizer)}
    if config.ppo.kl_coef:
        specs["ref"] = ModelSpec(config.ref or config.actor.model, "lm")
    if config.critic is not None:
        model = config.critic.model or config.actor.model
        specs["critic"] = ModelSpec(model, "scalar", config.critic.optimizer)
    if config.reward_model is not None:
        specs["reward"] = ModelSpec(config.reward_model, "scalar")
    return specs


def actor_gen(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    config = stopping(ctx.config.generation, ctx.tokenizer, ctx.config.data.template)
    if ctx.evaluating:
        config = config.greedy()
    ends = ends_by(config, ctx.tokenizer)
    options = {"seed": ctx.config.seed, "step": ctx.step, "ends": ends}
    options |= {"breaks": ctx.breaks}
    return CallOutput(ctx.engine.generate(batch, config, **options))


def reward_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    """The reward model's score of each response: its value at the end."""
    values = ctx.engine.values(batch)
    if values is None:
        return CallOutput()
    return CallOutput(batch.with_keys(per_sample={"scores": scores_at_ends(values, batch)}))


def ref_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    return _logprobs(ctx, batch, "ref_logprobs")


def prox_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    return _logprobs(ctx, batch, "prox_logprobs")


def _logprobs(ctx: CallContext, batch: PackedBatch, key: str) -> CallOutput:
    found = ctx.engine.logprobs(batch, temperature=ctx.config.generation.training_temperature)
    return CallOutput() if found is None else CallOutput(batch.with_keys(tokens={key: found}))


def critic_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    values = ctx.engine.values(batch)
    return CallOutput() if values is None else CallOutput(batch.with_keys(tokens={"values": values}))


def actor_train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    config, ppo = ctx.config, ctx.config.ppo
    metrics = staleness_metrics(ctx.step, batch)
    if ppo.kl_coef:
        metrics |= {"kl_to_ref": mean_over(batch["logprobs"] - batch["ref_logprobs"], batch)}
    kl_coef, num_updates = _kl_coef(ctx, batch), 0
    batch = _with_advantages(ctx, batch, kl_coef)
    for index, minibatch in enumerate(_minibatches(config, batch, ppo.num_minibatches)):
        num_tokens = float(ctx.reduce(minibatch["loss_mask"].sum()))
        if not num_tokens:
            continue
        loss = _ActorLoss(ctx, num_tokens, kl_coef)
        found = ctx.engine.train_logprobs(
            _with_weights(ctx, minibatch),
            loss,
            lr=_learning_rate(ctx, config.actor.optimizer, index, ppo.num_minibatches),
            temperature=config.generation.training_temperature,
            accept=loss.is_near_enough,
        )
        if not num_updates:  # by the weights that the step began with
            found |= loss.drift.metrics(ctx.reduce_mesh)
        metrics = joined(metrics, named("actor_", found))
        if loss.went_too_far:
            break
        num_updates += not found["skipped_updates"].total
    records = advantage_records(batch, ppo.group_size, config.batch_size * ppo.group_size)
    return CallOutput(metrics=metrics | {"actor_updates": Mean(num_updates, 1.0)}, records=records)


class _ActorLoss:
    """The loss of a mini-batch of `num_tokens`, over all ranks, and what is noted of it on this one."""

    def __init__(self, ctx: CallContext, num_tokens: float, kl_coef: float) -> None:
        self._ctx, self._num_tokens, self._kl_coef = ctx, num_tokens, kl_coef
        self.drift = Drift(ctx.step)
        self.went_too_far = False
        """Whether `ppo.early_stop_kl` was exceeded before the mini-batch's step."""
        self._approx_kl = Mean(0.0, 0.0)

    def __call__(self, logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        config = self._ctx.config
        found = _policy_loss(config, logprobs, micro)
        loss = found.loss + _kl_loss(config, logprobs, micro, self._kl_coef)
        self.drift.add(logprobs, micro)
        approx_kl = mean_of(found.approx_kl)
        self._approx_kl = self._approx_kl.joined(approx_kl)
        metrics = {
            "loss": share_of(loss, self._num_tokens, micro),
            "ratio": mean_of(found.ratio),
            "clip_fraction": mean_of(found.clipped),
            "approx_kl": approx_kl,
            "entropy": mean_over(micro["entropy"], micro),
        }
        if config.ppo.importance != "none":
            metrics |= importance_metrics(config.ppo, micro)
        return loss, metrics

    def is_near_enough(self) -> bool:
        """Whether the policy is still near the old one, so that the mini-batch's step is to be made.

        Collective: over the call's ranks, which all find the same.
        """
        limit = self._ctx.config.ppo.early_stop_kl
        if limit:
            own = torch.tensor([float(x) for x in self._approx_kl], dtype=torch.double)
            total, number = self._ctx.reduce_mesh(own).tolist()
            self.went_too_far = total > limit * number
        return not self.went_too_far


def _policy_loss(config: PPOMathConfig, logprobs: Tensor, micro: PackedBatch) -> PolicyLoss:
    ppo, weights = config.ppo, micro["weights"]
    if ppo.importance != "none":
        weights = weights * micro["importance"]
    return policy_loss(
        logprobs,
        micro["logprobs" if ppo.old == "rollout" else "prox_logprobs"],
        micro["advantages"],
        micro.responses,
        weights,
        micro.cu_seqlens,
        clip_low=ppo.clip_eps,
        clip_high=ppo.clip_high,
        dual_clip=ppo.dual_clip,
        level=ppo.ratio,
        surrogate=ppo.surrogate,
    )


def _kl_loss(config: PPOMathConfig, logprobs: Tensor, micro: PackedBatch, kl_coef: float) -> Tensor | float:
    ppo, responses = config.ppo, micro.responses
    if not kl_coef or ppo.kl_in != "loss":
        return 0.0
    kl = kl_estimate(logprobs[responses], micro["ref_logprobs"][responses], ppo.estimator)
    return kl_coef * (kl * micro["weights"][responses]).sum()


def critic_train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    config = ctx.config
    metrics: Metrics = {}
    batch = _with_advantages(ctx, batch, config.ppo.kl_coef)
    moments = _moments(ctx)
    tokens = {key: moments.normalised(batch[key]) for key in ("values", "returns")}
    num, num_updates = config.critic_minibatches, 0
    for index, minibatch in enumerate(_minibatches(config, batch.with_keys(tokens=tokens), num)):
        num_tokens = float(ctx.reduce(minibatch["loss_mask"].sum()))
        if not num_tokens:
            continue

        def loss(values: Tensor, micro: PackedBatch, num_tokens: float = num_tokens):
            found = value_loss(
                values.roll(1),
                micro["values"].roll(1),
                micro["returns"],
                micro.responses,
                micro["weights"],
                clip_eps=config.critic.clip_eps,
            )
            return found.loss, {
                "loss": share_of(found.loss, num_tokens, micro),
                "clip_fraction": mean_of(found.clipped),
            }

        lr = _learning_rate(ctx, config.critic.optimizer, index, num)
        found = ctx.engine.train_values(_with_weights(ctx, minibatch), loss, lr=lr)
        metrics = joined(metrics, named("critic_", found))
        num_updates += not found["skipped_updates"].total
    return CallOutput(metrics=metrics | {"critic_updates": Mean(num_updates, 1.0)})


def _kl_coef(ctx: CallContext, batch: PackedBatch) -> float:
    """Return `ppo.kl_coef`, or 0 where only rounding noise would be learned.

    That is where no reward teaches anything, and the policy differs from the reference by no more than
    rounding: AdamW scales a gradient up to steps of the full rate, however small it is.

    Collective: over the ranks of `ctx.reduce`.
    """
    config, ppo = ctx.config, ctx.config.ppo
    if not ppo.kl_coef or config.critic is not None:
        return ppo.kl_coef
    counts = takes_part(config, batch["is_graded"], batch["ended"])
    taught = _relative(ctx, batch["rewards"], batch) * counts
    if ppo.baseline == "none" and config.advantage_scale == "batch":
        whole = torch.zeros(len(batch), dtype=torch.long)
        taught = group_relative(batch["rewards"], whole, 1, ctx.reduce, counts=counts)
    difference = batch["logprobs"] - batch["ref_logprobs"]
    moved = difference[batch["loss_mask"]].double()
    num_tokens = torch.tensor(float(len(moved))).double()
    sums = torch.stack([taught.double().abs().sum(), moved.square().sum(), num_tokens])
    lesson, squares, number = ctx.reduce(sums).tolist()
    noise = LOGPROB_NOISE[config.actor.model.dtype]
    is_noise = squares <= number * noise**2
    return 0.0 if is_noise and not lesson else ppo.kl_coef


def _with_advantages(ctx: CallContext, batch: PackedBatch, kl_coef: float) -> PackedBatch:
    """The samples that take part, with `advantages` and `returns`, both `[T]` and 0 outside the responses."""
    ppo, config = ctx.config.ppo, ctx.config
    mask = batch["loss_mask"]
    in_token_reward = kl_coef if ppo.kl_in == "token_reward" else 0.0
    token_rewards = kl_penalised_rewards(
        _task_rewards(ctx, batch, kl_coef),
        batch["logprobs"],
        batch["ref_logprobs"] if in_token_reward else batch["logprobs"],
        mask,
        batch.cu_seqlens,
        kl_coef=in_token_reward,
        estimator=ppo.estimator,
    )
    moments = _moments(ctx)
    if "values" in batch.tokens:
        batch = batch.with_keys(tokens={"values": moments.restored(batch["values"])})
    cu_responses = cu_seqlens_of(response_lengths(batch).tolist())
    goes_on = ~batch["ended"] & config.bootstraps_truncated
    rewards, values = token_rewards[mask], _state_values(batch)
    advantages, returns = gae(rewards, values, cu_responses, goes_on, gamma=ppo.gamma, lam=ppo.lam)
    _check_finite(advantages, returns)
    advantages, returns = _spread(advantages, mask), _spread(returns, mask)
    chosen = takes_part(config, batch["is_graded"], batch["ended"]).nonzero()[:, 0].tolist()
    batch = batch.with_keys(tokens={"advantages": advantages, "returns": returns}).select(chosen)
    _remember(ctx, moments, batch)
    if config.advantage_scale != "batch":
        return batch
    advantages = masked_normalise(batch["advantages"], batch["loss_mask"], ctx.reduce)
    return batch.with_keys(tokens={"advantages": advantages})


def _moments(ctx: CallContext) -> RunningMoments:
    """Of the returns of the steps before this one."""
    sums = ctx.memory.get("returns")
    return RunningMoments.fresh() if sums is None else RunningMoments(sums)


def _remember(ctx: CallContext, moments: RunningMoments, batch: PackedBatch) -> None:
    """Take this step's returns into the moments; both calls that train come to the same ones."""
    critic = ctx.config.critic
    if critic is not None and critic.normalise != "none":
        options = {"kind": critic.normalise, "beta": critic.normalise_beta}
        seen = moments.seen(batch["returns"], batch["loss_mask"], ctx.reduce, **options)
        ctx.memory["returns"] = seen.sums


def _check_finite(advantages: Tensor, returns: Tensor) -> None:
    """Raise FloatingPointError unless all are numbers; NaN would pass through clipping unseen."""
    if not (advantages.isfinite().all() and returns.isfinite().all()):
        raise FloatingPointError(
            "advantages or returns are not finite: the sum of rewards, values and KL overflows float32, or"
            " has NaN in it; look at reward, scores.scale, ppo.kl_coef and the critic's values"
        )


def _task_rewards(ctx: CallContext, batch: PackedBatch, kl_coef: float) -> Tensor:
    """`[B]`: as given with a critic or without a baseline, else relative to the prompt's other samples."""
    ppo, rewards = ctx.config.ppo, batch["rewards"]
    if kl_coef and ppo.kl_in == "sequence_reward":
        kl = kl_estimate(batch["logprobs"], batch["ref_logprobs"], ppo.estimator) * batch["loss_mask"]
        rewards = rewards - kl_coef * torch.stack([part.sum() for part in kl.split(batch.lengths)])
    return _relative(ctx, rewards, batch)


def _relative(ctx: CallContext, rewards: Tensor, batch: PackedBatch) -> Tensor:
    """`[B]`: rewards less their baseline, if there is one.

    Collective: over the ranks of `ctx.reduce`.
    """
    config, ppo = ctx.config, ctx.config.ppo
    if config.critic is not None or ppo.baseline == "none":
        return rewards
    return group_relative(
        rewards,
        groups_of(config, batch),
        config.batch_size,
        ctx.reduce,
        counts=takes_part(config, batch["is_graded"], batch["ended"]),
        baseline=ppo.baseline,
        normalise_std=config.advantage_scale == "group_std",
    )


def _state_values(batch: PackedBatch) -> Tensor:
    """The value before each response token and after the last: `[T_response + B]`, 0 without a critic."""
    mask = batch["loss_mask"]
    in_state = mask | mask.roll(-1)
    if "values" in batch.tokens:
        return batch["values"][in_state]
    return torch.zeros(int(in_state.sum()))


def _with_weights(ctx: CallContext, minibatch: PackedBatch) -> PackedBatch:
    """The mini-batch with what each token counts in its loss: `weights`, and `importance` if there is any."""
    ppo, mask, cu_seqlens = ctx.config.ppo, minibatch["loss_mask"], minibatch.cu_seqlens
    max_new_tokens = ctx.config.generation.max_new_tokens
    options = {"aggregation": ppo.aggregation, "max_new_tokens": max_new_tokens}
    tokens = {"weights": token_weights(mask, cu_seqlens, ctx.reduce, **options)}
    if ppo.importance != "none":
        tokens["importance"] = importance_weights(
            minibatch["prox_logprobs"],
            minibatch["logprobs"],
            mask,
            cu_seqlens,
            cap=ppo.importance_cap,
            level=ppo.importance_level,
            kind=ppo.importance,
        )
    return minibatch.with_keys(tokens=tokens)


def _spread(values: Tensor, mask: Tensor) -> Tensor:
    """`[T_response] -> [T]`, 0 outside the mask."""
    return torch.zeros(len(mask)).masked_scatter(mask, values)


def _minibatches(config: PPOMathConfig, batch: PackedBatch, num: int) -> list[PackedBatch]:
    """This rank's part of each mini-batch; which sample goes where does not depend on the plan."""
    total = config.batch_size * config.ppo.group_size
    chosen = [
        [i for i, s in enumerate(batch.samples) if s.id * num // total == index] for index in range(num)
    ]
    return [batch.select(indices) for indices in chosen]


def _learning_rate(ctx: CallContext, optimizer: OptimizerConfig, index: int, num: int) -> float:
    return learning_rate(optimizer, ctx.step * num + index, ctx.config.num_steps * num)


def datasets(config: PPOMathConfig, tokenizer: Any) -> tuple[PromptDataset, PromptDataset | None]:
    """The training prompts, and the held-out ones if there are any."""
    return load_prompts(config.data, tokenizer, needs_solutions=MATH in weights_of(config.reward))


def validate(config: PPOMathConfig, decoders: Mapping[str, Any]) -> None:
    for name in weights_of(config.reward):
        if name not in (MATH, GYM, MODEL):
            load_function(name)
    if config.ppo.ref_eta and replace(decoders["ref"], eos_token_ids=()) != replace(
        decoders["actor"], eos_token_ids=()
    ):
        raise ValueError(
            "ppo.ref_eta: the reference can follow only an actor of its own architecture; leave out ref, or"
            " set ppo.ref_eta=0"
        )


def best_by(config: PPOMathConfig) -> Criterion:
    """Right answers, where the verifier tells which are."""
    return Criterion("greedy_accuracy" if MATH in weights_of(config.reward) else "reward")


PPO_MATH = Recipe(
    name="ppo-math",
    default_config=PPOMathConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: config.ppo.group_size,
    datasets=datasets,
    row_keys=("prompts",),
    validate=validate,
    best_by=best_by,
    symptoms=policy_symptoms,
    course_watch=watch_verdicts,
    bodies={
        "actor_gen": actor_gen,
        "reward": reward,
        "reward_inf": reward_inf,
        "ref_inf": ref_inf,
        "prox_inf": prox_inf,
        "critic_inf": critic_inf,
        "actor_train": actor_train,
        "critic_train": critic_train,
    },
)
