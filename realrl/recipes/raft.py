"""RAFT: learn by imitation from one's own best answers (Dong et al. 2023, arXiv:2304.06767).

actor_gen ──▶ reward ──▶ actor_train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from realrl import algorithms
from realrl.api.config import FixedKey
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Mean, Metrics
from realrl.recipes import parts
from realrl.recipes.parts import calls
from realrl.recipes.parts.config import PolicyConfig
from realrl.recipes.parts.policy_recipe import policy_recipe
from realrl.recipes.parts.settings import WITHOUT_ADVANTAGES, Sampling, fixed

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class RAFTSettings(Sampling):
    """What can be set of RAFT: `group_size`."""

    FIXED = fixed(**WITHOUT_ADVANTAGES)


@dataclass(frozen=True, kw_only=True)
class RAFTConfig(PolicyConfig):
    """Rejection sampling: learn by imitation from one's own best answers."""

    FIXED = MappingProxyType(
        {
            **PolicyConfig.FIXED,
            "advantage": FixedKey((None,), "it is a key of the recipes that learn from advantages, as grpo"),
            "loss": FixedKey((None,), "it is a key of the recipes that learn from advantages, as grpo"),
        }
    )

    experiment: str = "raft"
    ppo: RAFTSettings = field(default_factory=RAFTSettings)
    keep: Literal["all_right", "best"] = "all_right"
    """Which of a prompt's responses are learned: all that have `least_reward`; or the one with the largest
    reward, the first of equal ones. A response that was cut off, or could not be graded, is not learned."""
    least_reward: float | None = None
    """The least reward of a response that is learned. Left out: with `all_right`, that of a right answer by
    `scores`; with `best`, any reward will do."""

    @property
    def lower_bound(self) -> float:
        """The least reward of a response that is learned; minus infinity if any will do."""
        if self.least_reward is not None:
            return self.least_reward
        if self.keep == "best":
            return float("-inf")
        scores = self.scores
        of_right = (scores.correct + scores.bias) * scores.scale
        if not scores.clip:
            return of_right
        return min(of_right, scores.clip)


def graph(config: RAFTConfig) -> DataflowGraph:
    """Return one training step."""
    return calls.step(config, Call("actor_train", "actor", CallKind.TRAIN, (*calls.TRAINED, "rewards")))


def actor_train(ctx: CallContext[RAFTConfig], batch: PackedBatch) -> CallOutput:
    """Make a step on the mean of minus the log-probability over the tokens of the responses that are kept.

    Where none is kept, on all ranks, no step is made.
    """
    config = ctx.config
    kept = batch.select(_kept(ctx, batch))
    metrics: Metrics = {"accepted": Mean(len(kept), len(batch))}
    num_tokens = float(ctx.reduce(kept["loss_mask"].sum()))
    if not num_tokens:
        return CallOutput(metrics=metrics)

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return a micro-batch's part of the mean over the tokens."""
        total = -logprobs.sum() / num_tokens
        return total, {"loss": parts.report.share_of(total, num_tokens, micro)}

    lr = algorithms.learning_rate.learning_rate(config.actor.optimizer, ctx.step, config.num_steps)
    found = ctx.engine.train_logprobs(kept, loss, lr=lr, temperature=1.0)
    return CallOutput(metrics={**metrics, **found})


def _kept(ctx: CallContext[RAFTConfig], batch: PackedBatch) -> list[int]:
    """Return the places of the samples to learn. Collective: over the ranks of `ctx.reduce`."""
    config = ctx.config
    is_good = batch["is_graded"] & batch["ended"] & (batch["rewards"] >= config.lower_bound)
    if config.keep == "best":
        is_good = algorithms.selection.best_in_group(
            batch["rewards"],
            is_good,
            [sample.id for sample in batch.samples],
            config.batch_size,
            config.ppo.group_size,
            ctx.reduce,
        )
    places: list[int] = is_good.nonzero()[:, 0].tolist()
    return places


RAFT = policy_recipe(
    "raft",
    RAFTConfig(),
    graph=graph,
    models=calls.models,
    bodies={"actor_train": actor_train},
)
