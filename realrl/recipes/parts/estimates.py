"""The call `advantages`: what a step's samples earned, and what training takes of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from realrl.algorithms.advantages import ESTIMATORS, Estimator, Scored, spread
from realrl.algorithms.kl import kl_estimate
from realrl.algorithms.normalise import group_relative, masked_normalise
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, CallOutput
from realrl.base.spelling import did_you_mean
from realrl.base.user_files import is_file_reference, load_function_from_file
from realrl.recipes.parts.checks import groups_of, takes_part
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.reward_names import GDPO, OVERLONG, part_keys, part_names
from realrl.recipes.parts.reward_samples import sources_of, weights_by_name
from realrl.recipes.parts.sample_records import advantage_records
from realrl.recipes.parts.settings import Relative
from realrl.rewards.functions import GYM, MATH


def estimator_of(config: AdvantageConfig, default: str) -> Estimator:
    """Return the estimator that a config names, or the recipe's own.

    Raises:
        ValueError: it names none.
    """
    name = default if config.advantage is None else config.advantage
    if name in ESTIMATORS:
        return ESTIMATORS[name]
    if not is_file_reference(name):
        raise ValueError(
            f"advantage: expected {', '.join(ESTIMATORS)} or a path/to/file.py:function, got {name!r}"
            f"{did_you_mean(name, ESTIMATORS)}"
        )
    estimator: Estimator = load_function_from_file(
        name,
        setting="advantage",
        num_arguments=1,
        form="f(scored), with what a step's samples earned",
    )
    return estimator


def check(config: AdvantageConfig) -> None:
    """Check the estimator that a config names.

    Raises:
        ValueError: there is none of this name, its file cannot be loaded, or it needs a critic.
    """
    estimator_of(config, "grpo")
    if config.advantage == "gae" and not config.has_critic:
        raise ValueError(
            "advantage: gae needs the values of a critic, and this run has none; take the recipe ppo, or"
            " another estimator"
        )
    if config.advantage == GDPO:
        _check_gdpo(config)


def _check_gdpo(config: AdvantageConfig) -> None:
    """Raise ValueError for what changes the sum of rewards, which this estimator does not look at."""
    scores = config.scores
    if scores.clip or scores.bias or scores.scale != 1:
        raise ValueError(
            "advantage: gdpo normalises each reward by itself, so scores.bias, scores.scale and scores.clip,"
            " which change their sum, do nothing; leave them out"
        )
    if scores.truncated == "wrong" and not {MATH, GYM}.issuperset(config.reward_names):
        raise ValueError(
            "advantage: gdpo normalises each reward by itself, so scores.truncated=wrong cannot bound their"
            " sum; set scores.truncated=left_out or graded"
        )
    if config.ppo.group_size == 1:
        raise ValueError(
            "advantage: gdpo compares the responses to a prompt; set ppo.group_size to 2 or more"
        )


def takes_part_in(config: AdvantageConfig, batch: PackedBatch) -> Tensor:
    """Return whether each sample is trained on: bool `[B]`."""
    return takes_part(config, batch["is_graded"], batch["ended"])


def chosen(config: AdvantageConfig, batch: PackedBatch) -> PackedBatch:
    """Return the samples that are trained on."""
    places = takes_part_in(config, batch).nonzero()[:, 0]
    return batch.select(places.tolist())


def trained_tokens(config: AdvantageConfig, batch: PackedBatch) -> Tensor:
    """Return the response tokens that are trained on: bool `[T]`."""
    return batch["loss_mask"] & _tokens_of(takes_part_in(config, batch), batch)


def scored(
    ctx: CallContext[AdvantageConfig],
    batch: PackedBatch,
    *,
    rewards: Tensor | None = None,
    kl_coef: float = 0.0,
    values: Tensor | None = None,
    bootstrap: Tensor | None = None,
    gamma: float = 1.0,
    lam: float | Tensor = 1.0,
) -> Scored:
    """Return what an estimator sees of a batch; left out, rewards are as graded.

    Tokens earn `-kl_coef` times their KL (k1) to the reference (Ouyang et al. 2022, arXiv:2203.02155, eq. 2).
    """
    config = ctx.config
    ppo = config.ppo
    token_rewards = torch.zeros(batch.num_tokens)
    if kl_coef:
        kl = kl_estimate(batch["logprobs"].detach(), batch["ref_logprobs"], "k1")
        token_rewards = torch.where(batch["loss_mask"], -kl_coef * kl, 0.0)
    names = part_names(config)
    keys = part_keys(config)
    return Scored(
        rewards=batch["rewards"] if rewards is None else rewards,
        groups=groups_of(config, batch),
        num_groups=config.batch_size,
        counts=takes_part_in(config, batch),
        loss_mask=batch["loss_mask"],
        cu_seqlens=batch.cu_seqlens,
        reduce=ctx.reduce,
        token_rewards=token_rewards,
        values=values,
        bootstrap=bootstrap,
        gamma=gamma,
        lam=lam,
        scale=ppo.advantage_scale if isinstance(ppo, Relative) else "group_std",
        sample_std=isinstance(ppo, Relative) and ppo.std == "sample",
        parts={name: batch[key] for name, key in zip(names, keys, strict=True)},
        part_weights=_part_weights(ctx, batch) if names else {},
    )


def _part_weights(ctx: CallContext[AdvantageConfig], batch: PackedBatch) -> dict[str, Tensor]:
    """Return the weight of each reward of each sample by its name: float64 `[B]`, 0 where it has it not."""
    config = ctx.config
    weights = weights_by_name(config, sources_of(ctx, batch))
    found = {name: weight.nan_to_num(nan=0.0) for name, weight in weights.items()}
    if OVERLONG in part_names(config):
        found[OVERLONG] = torch.ones(len(batch), dtype=torch.double)
    return found


def differences(ctx: CallContext[AdvantageConfig], batch: PackedBatch) -> Tensor:
    """Return rewards less their mean over the whole batch: float32 `[B]`, all 0 where they are equal.

    Collective: over the ranks of `ctx.reduce`.
    """
    whole = torch.zeros(len(batch), dtype=torch.long)
    counts = takes_part_in(ctx.config, batch)
    return group_relative(batch["rewards"], whole, 1, ctx.reduce, counts=counts)


def output(
    ctx: CallContext[AdvantageConfig],
    batch: PackedBatch,
    advantages: Tensor,
    *,
    normalised: bool = False,
    more: Mapping[str, Tensor] | None = None,
) -> CallOutput:
    """Return the batch with its advantages and `more` keys, and a record of each sample that is trained on.

    `normalised`: less their mean over the tokens that are trained on, in units of their standard deviation.

    Shapes: advantages and each of `more` float32 `[T]`.
    Collective: over the ranks of `ctx.reduce`, where normalised.
    Raises:
        ValueError: the advantages are not one a token.
    """
    config = ctx.config
    advantages = _checked(advantages, batch)
    whole = batch.with_keys(tokens={"advantages": advantages})
    part = chosen(config, whole)
    if normalised:
        # Over these samples alone, in their order: a sum over zeros too would be rounded otherwise.
        scaled = masked_normalise(part["advantages"], part["loss_mask"], ctx.reduce)
        part = part.with_keys(tokens={"advantages": scaled})
        tokens = _tokens_of(takes_part_in(config, batch), batch)
        whole = batch.with_keys(tokens={"advantages": spread(scaled, tokens)})
    limit = config.ppo.clip_advantages
    if limit:
        whole = whole.with_keys(tokens={"advantages": whole["advantages"].clamp(-limit, limit)})
        part = chosen(config, whole)
    group_size = config.ppo.group_size
    batch_samples = config.batch_size * group_size
    records = advantage_records(part, group_size, batch_samples)
    return CallOutput(whole.with_keys(tokens=more), records=records)


def _checked(advantages: Tensor, batch: PackedBatch) -> Tensor:
    """Return a user's advantages as float32, and 0 outside the responses.

    Raises:
        ValueError: they are not one finite number a token.
    """
    if not isinstance(advantages, Tensor) or advantages.shape != (batch.num_tokens,):
        is_tensor = isinstance(advantages, Tensor)
        got = tuple(advantages.shape) if is_tensor else type(advantages).__name__
        raise ValueError(
            f"advantage: expected a tensor with one advantage for each of {batch.num_tokens} tokens, as"
            f" scored.to_go(rewards) gives, got {got}"
        )
    if not advantages.isfinite().all():
        raise FloatingPointError("advantage: the estimator gave advantages that are not finite")
    return torch.where(batch["loss_mask"], advantages.float(), 0.0)


def _tokens_of(samples: Tensor, batch: PackedBatch) -> Tensor:
    """Return the tokens of some samples: bool `[B] -> [T]`."""
    return torch.repeat_interleave(samples, batch.cu_seqlens.diff().long())
