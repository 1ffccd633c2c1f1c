"""What any algorithm's loss of the policy may have besides: terms, and tokens that are treated by themselves.

a mini-batch ── prepared ──▶ keys that say of each token: factor, penalised, right_weights
a micro-batch ── cost ──▶ scalar: - entropy, - right answers, + distance of penalised tokens
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.coefficients import adapted_entropy_coef
from realrl.algorithms.correction import corrected
from realrl.algorithms.policy import ResponseTokens
from realrl.algorithms.selection import covariances, largest
from realrl.api.batch import PackedBatch
from realrl.api.recipe import CallContext, Mean, Metrics
from realrl.base.seeding import derive_seed
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.settings import Updates

ENTROPY = "entropy"
"""What a train call remembers: the coefficient of the entropy, and the entropy that the last step found."""
COVARIANCE_BOUNDS = (1.0, 5.0)
"""Between which covariances Clip-Cov draws tokens (arXiv:2505.22617, sec. 4.2)."""
ENTROPY_CHANGE = 0.005
"""By how much a step changes the coefficient of the entropy (arXiv:2505.22312, sec. 3.2.4)."""


def prepared(ctx: CallContext[AdvantageConfig], minibatch: PackedBatch) -> PackedBatch:
    """Return the mini-batch with what its tokens' losses are multiplied with, and what terms need of them.

    Collective: over the ranks of `ctx.reduce`.
    """
    ppo = ctx.config.ppo
    keys: dict[str, Tensor] = {}
    if ppo.correction.corrects:
        found = corrected(
            minibatch["prox_logprobs"],
            minibatch["logprobs"],
            minibatch["loss_mask"],
            minibatch.cu_seqlens,
            ppo.correction.resolved,
        )
        keys["correction"] = found.factors
    if ppo.covariance != "none":
        keys["covariant"] = _covariant(ctx, minibatch)
    if ppo.top_entropy < 1:
        keys["is_uncertain"] = _uncertain(ctx, minibatch)
    if ppo.positive_nll:
        keys["right_weights"] = _right_weights(ctx, minibatch)
    return minibatch.with_keys(tokens=keys)


def cost(ppo: Updates, tokens: ResponseTokens, micro: PackedBatch, entropy_coef: float) -> Tensor | float:
    """Return what the terms add to a micro-batch's loss: a scalar.

    Source: entropy, Mnih et al. 2016, arXiv:1602.01783, sec. 4; learning right answers, Yue et al. 2025,
        arXiv:2504.05118, eq. 11 (VAPO); KL-Cov, Cui et al. 2025, arXiv:2505.22617, eq. 12.
    """
    responses = tokens.responses
    total: Tensor | float = 0.0
    if entropy_coef:
        entropy = micro["entropy"][responses]
        total = total - entropy_coef * (entropy * micro["weights"][responses]).sum()
    if ppo.positive_nll:
        total = total - ppo.positive_nll * (tokens.logprobs * micro["right_weights"][responses]).sum()
    if ppo.covariance == "kl":
        penalised = micro["covariant"][responses] * micro["weights"][responses]
        distance = (tokens.logprobs - tokens.old_logprobs).abs()
        total = total + (distance * penalised).sum()
    return total


def entropy_coef(ctx: CallContext[AdvantageConfig]) -> float:
    """Return the coefficient of the entropy in this step.

    With a target, it is that of the steps before, and counts only where the entropy was not above it.
    """
    ppo = ctx.config.ppo
    if not ppo.entropy_target:
        return ppo.entropy_coef
    coef, last = _remembered(ctx)
    return coef if last <= ppo.entropy_target else 0.0


def remember_entropy(ctx: CallContext[AdvantageConfig], metrics: Metrics) -> Metrics:
    """Adapt the coefficient of the entropy to what a step found; return it as a metric.

    Collective: over the call's ranks.
    """
    ppo = ctx.config.ppo
    if not (ppo.entropy_coef or ppo.entropy_target):
        return {}
    used = entropy_coef(ctx)
    if ppo.entropy_target:
        own = metrics.get("actor_entropy", Mean(0.0, 0.0))
        assert isinstance(own, Mean), "a mean over tokens"
        total, number = ctx.reduce_mesh(torch.tensor([float(x) for x in own]).double()).tolist()
        coef, last = _remembered(ctx)
        if number:
            last = total / number
            coef = adapted_entropy_coef(coef, last, target=ppo.entropy_target, change=ENTROPY_CHANGE)
        ctx.memory[ENTROPY] = torch.tensor([coef, last], dtype=torch.double)
    return {"actor_entropy_coef": Mean(used, 1.0)}


def _remembered(ctx: CallContext[AdvantageConfig]) -> tuple[float, float]:
    """Return the coefficient of the entropy, and the entropy that the last step found."""
    found = ctx.memory.get(ENTROPY)
    if found is None:
        return ctx.config.ppo.entropy_coef, 0.0
    coef, last = found.tolist()
    return coef, last


def _covariant(ctx: CallContext[AdvantageConfig], minibatch: PackedBatch) -> Tensor:
    """Return the tokens whose likelihood and advantage go together most, which lower the entropy: bool `[T]`.

    Clip-Cov draws them from those between two bounds, and KL-Cov takes the largest. Both are a share of the
    mini-batch's tokens, and are found before its step, whose first micro-batches have the same covariances.

    Collective: over the ranks of `ctx.reduce`.
    Source: Cui et al. 2025, arXiv:2505.22617, eq. 10 to 12.
    """
    ppo = ctx.config.ppo
    mask = minibatch["loss_mask"]
    old = minibatch["logprobs" if ppo.old == "rollout" else "prox_logprobs"]
    found = covariances(old[mask], minibatch["advantages"][mask], ctx.reduce)
    if ppo.covariance == "kl":
        chosen = largest(found, ppo.covariance_share, ctx.reduce)
    else:
        low, high = COVARIANCE_BOUNDS
        is_candidate = (found > low) & (found < high)
        draws = _draws(ctx, minibatch)[mask]
        drawn = largest(draws.where(is_candidate, -1.0), ppo.covariance_share, ctx.reduce)
        chosen = drawn & is_candidate
    return torch.zeros_like(mask).masked_scatter(mask, chosen)


def _uncertain(ctx: CallContext[AdvantageConfig], minibatch: PackedBatch) -> Tensor:
    """Return the tokens with the largest entropy before the update: bool `[T]`.

    Collective: over the ranks of `ctx.reduce`.
    Source: Wang et al. 2025, arXiv:2506.01939, eq. 5.
    """
    mask = minibatch["loss_mask"]
    chosen = largest(minibatch["prox_entropies"][mask], ctx.config.ppo.top_entropy, ctx.reduce)
    return torch.zeros_like(mask).masked_scatter(mask, chosen)


def _draws(ctx: CallContext[AdvantageConfig], minibatch: PackedBatch) -> Tensor:
    """Return a random number for each token, whoever holds it: float32 `[T]`, from 0 to 1."""
    drawn = [torch.zeros(0)]
    for sample, length in zip(minibatch.samples, minibatch.lengths):
        seed = derive_seed(ctx.config.seed, "covariance", ctx.step, sample.id)
        drawn.append(torch.rand(length, generator=torch.Generator().manual_seed(seed)))
    return torch.cat(drawn)


def _right_weights(ctx: CallContext[AdvantageConfig], minibatch: PackedBatch) -> Tensor:
    """Return the weights of the mean over the tokens of rewarded responses: float32 `[T]`, 0 elsewhere.

    Collective: over the ranks of `ctx.reduce`.
    """
    lengths = minibatch.cu_seqlens.diff().long()
    is_right = torch.repeat_interleave(minibatch["rewards"] > 0, lengths)
    counted = is_right & minibatch["loss_mask"]
    number = ctx.reduce(counted.double().sum())
    return counted.float() / float(number.clamp(min=1))
