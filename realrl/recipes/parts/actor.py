"""The training of a policy on an algorithm's loss, or on a user's own.

steps ──▶ engine: micro-batches ──▶ _Watched: the loss, what is reported of it ──▶ near enough? ──▶ update
                                                                              │ no
                                                                              └──▶ the call ends early
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from realrl.algorithms.choices import Aggregation
from realrl.algorithms.correction import stale_and_bad
from realrl.algorithms.policy import PolicyLoss, ResponseTokens, TokenLoss, own_loss
from realrl.api.batch import PackedBatch
from realrl.api.metrics import Metric
from realrl.api.recipe import CallContext, CallOutput, Mean, Metrics, joined
from realrl.base.user_files import load_function_from_file
from realrl.recipes.parts import terms
from realrl.recipes.parts.config import AdvantageConfig
from realrl.recipes.parts.report import (
    Drift,
    correction_metrics,
    mean_of,
    mean_over,
    named,
    responses_of,
    share_of,
    staleness_metrics,
)
from realrl.recipes.parts.update import num_updates_of, steps

LossOfPolicy = Callable[[ResponseTokens], PolicyLoss]
"""An algorithm's loss of a micro-batch."""
TermOfLoss = Callable[[ResponseTokens, PackedBatch], Tensor | float]
"""What an algorithm adds to its loss of a micro-batch, as the cost of a distance: a scalar."""


def own_loss_of(config: AdvantageConfig) -> TokenLoss | None:
    """Return the loss of a user's own that a config names, if it does.

    Raises:
        ValueError: it names none that can be loaded.
    """
    if config.loss is None:
        return None
    loss: TokenLoss = load_function_from_file(
        config.loss,
        setting="loss",
        num_arguments=1,
        form="f(tokens), with a micro-batch's response tokens",
    )
    return loss


def check(config: AdvantageConfig) -> None:
    """Check the loss that a config names.

    Raises:
        ValueError: it cannot be loaded.
    """
    own_loss_of(config)


def train(
    ctx: CallContext[AdvantageConfig],
    batch: PackedBatch,
    loss: LossOfPolicy,
    *,
    aggregation: Aggregation,
    term: TermOfLoss = lambda tokens, micro: 0.0,
) -> CallOutput:
    """Train the actor on the samples that take part, mini-batch by mini-batch, up to `early_stop_kl`.

    A loss of the user's own is taken instead of `loss`; `term` is added to both.

    Collective: over the call's ranks.
    """
    config, ppo = ctx.config, ctx.config.ppo
    metrics: Metrics = staleness_metrics(ctx.step, batch)
    if "ref_logprobs" in batch.tokens:
        distance = mean_over(batch["logprobs"] - batch["ref_logprobs"], batch)
        metrics = {**metrics, "kl_to_ref": distance}
    own = own_loss_of(config)
    if own is not None:
        loss = partial(own_loss, token_loss=own)
    entropy_coef = terms.entropy_coef(ctx)
    num_updates = 0.0
    for step in steps(ctx, batch, config.actor.optimizer, ppo.num_minibatches, aggregation):
        watched = _Watched(ctx, step.num_tokens, loss, term, entropy_coef)
        found = ctx.engine.train_logprobs(
            terms.prepared(ctx, step.minibatch),
            watched,
            lr=step.lr,
            temperature=config.generation.training_temperature,
            accept=watched.is_near_enough,
        )
        if not num_updates:  # by the weights that the step began with
            found = {**found, **watched.drift.metrics(ctx.reduce_mesh)}
        metrics = joined(metrics, named("actor_", found))
        if watched.went_too_far:
            break
        num_updates += num_updates_of(found)
    remembered = terms.remember_entropy(ctx, metrics)
    return CallOutput(metrics={**metrics, **remembered, "actor_updates": Mean(num_updates, 1.0)})


class _Watched:
    """The loss of a mini-batch of `num_tokens`, over all ranks, and what is noted of it on this one."""

    def __init__(
        self,
        ctx: CallContext[AdvantageConfig],
        num_tokens: float,
        loss: LossOfPolicy,
        term: TermOfLoss,
        entropy_coef: float,
    ) -> None:
        self._ctx = ctx
        self._num_tokens = num_tokens
        self._loss = loss
        self._term = term
        self._entropy_coef = entropy_coef
        self.drift = Drift(ctx.step)
        self.went_too_far = False
        """Whether `ppo.early_stop_kl` was exceeded before the mini-batch's step."""
        self._approx_kl = Mean(0.0, 0.0)

    def __call__(self, logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        ppo = self._ctx.config.ppo
        responses = responses_of(micro)
        weights = micro["weights"]
        if ppo.correction.corrects:
            weights = weights * micro["correction"]
        if ppo.covariance == "clip":
            weights = weights * ~micro["covariant"]
        if ppo.top_entropy < 1:
            weights = weights * micro["is_uncertain"]
        old_logprobs = micro["logprobs" if ppo.old == "rollout" else "prox_logprobs"]
        tokens = ResponseTokens(
            logprobs=logprobs[responses],
            old_logprobs=old_logprobs[responses],
            advantages=micro["advantages"][responses],
            weights=weights[responses],
            responses=responses,
            cu_seqlens=micro.cu_seqlens,
        )
        metrics: dict[str, Metric] = {}
        if ppo.off_policy_mask:
            left_out = stale_and_bad(tokens, micro["logprobs"][responses], limit=ppo.off_policy_mask)
            tokens = replace(tokens, weights=tokens.weights.where(~left_out, 0.0))
            metrics["off_policy_masked"] = mean_of(left_out)
        found = self._loss(tokens)
        loss = found.loss + self._term(tokens, micro)
        loss = loss + terms.cost(ppo, tokens, micro, self._entropy_coef)

        self.drift.add(logprobs, micro)
        approx_kl = mean_of(found.approx_kl)
        self._approx_kl = self._approx_kl.joined(approx_kl)
        metrics |= {
            "loss": share_of(loss, self._num_tokens, micro),
            "ratio": mean_of(found.ratio),
            "clip_fraction": mean_of(found.clipped),
            "approx_kl": approx_kl,
            "entropy": mean_over(micro["entropy"], micro),
        }
        if ppo.correction.corrects:
            metrics |= correction_metrics(ppo.correction.resolved, micro)
        return loss, metrics

    def is_near_enough(self) -> bool:
        """Whether the policy is still near the old one, so that the mini-batch's step is to be made.

        Collective: over the call's ranks, which all find the same.
        """
        limit = self._ctx.config.ppo.early_stop_kl
        if limit:
            own = torch.tensor(
                [float(x) for x in self._approx_kl],
                dtype=torch.double,
            )
            total, number = self._ctx.reduce_mesh(own).tolist()
            self.went_too_far = total > limit * number
        return not self.went_too_far
