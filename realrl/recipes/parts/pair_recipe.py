"""A recipe that learns a policy from pairs of responses, made of what tells its algorithm apart: its losses.

rows ──▶ ref_inf ──▶ train        with a reference
rows ──▶ train                    without
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from realrl import algorithms
from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallBody, CallContext, CallOutput, Dataset, Metrics, ModelSpec, Recipe
from realrl.recipes import parts
from realrl.recipes.parts.calls import PAIR, PER_PAIR
from realrl.recipes.parts.symptoms import optimizer_symptoms

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch
    from realrl.recipes.parts.pairs import PairLosses, Responses


@dataclass(frozen=True, kw_only=True)
class PairConfig(TrainingConfig):
    """A policy that learns from pairs of responses."""

    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-6))
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True, kw_only=True)
class ReferredPairConfig(PairConfig):
    """A policy that learns from pairs of responses, and is held near a reference."""

    ref: ModelConfig | None = None
    """The reference policy; left out, the model as it was loaded."""


P = TypeVar("P", bound=PairConfig)

Losses = Callable[[P, "Responses"], "PairLosses"]
"""The losses of an algorithm: `(config, the responses of a micro-batch)`."""


def graph(config: PairConfig) -> DataflowGraph:
    """Return one training step."""
    return _with_reference(config, "train", CallKind.TRAIN)


def eval_graph(config: PairConfig) -> DataflowGraph:
    """Return an evaluation: the loss on held-out pairs."""
    return _with_reference(config, "validate", CallKind.INFERENCE)


def _with_reference(config: PairConfig, name: str, kind: CallKind) -> DataflowGraph:
    """Return the call `name` of the model that learns, after that of the reference if there is one."""
    if not isinstance(config, ReferredPairConfig):
        return DataflowGraph(Call(name, "model", kind, PAIR), per_sample=PER_PAIR)
    return DataflowGraph(
        Call("ref_inf", "ref", CallKind.INFERENCE, PAIR, ("ref_logprobs",)),
        Call(name, "model", kind, (*PAIR, "ref_logprobs")),
        per_sample=PER_PAIR,
    )


def models(config: PairConfig) -> dict[str, ModelSpec]:
    """Return the model that learns, and the reference if there is one."""
    specs = {"model": ModelSpec(config.model, "lm", config.optimizer)}
    if isinstance(config, ReferredPairConfig):
        specs["ref"] = ModelSpec(config.ref or config.model, "lm")
    return specs


def datasets(config: PairConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training pairs, and the held-out ones if there are any."""
    return parts.data.load_pairs(config, tokenizer)


def ref_inf(ctx: CallContext[TrainingConfig], batch: PackedBatch) -> CallOutput:
    """Take the reference's log-probability of each token of both responses."""
    found = ctx.engine.logprobs(parts.data.sequences_of(batch), temperature=1.0)
    if found is None:
        return CallOutput()
    return CallOutput(batch.with_keys(tokens={"ref_logprobs": found}))


def train(ctx: CallContext[P], batch: PackedBatch, *, losses: Losses[P]) -> CallOutput:
    """Make a step on the mean of the pairs' losses over all ranks."""
    num_pairs = parts.pairs.num_pairs(ctx, batch)

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return a micro-batch's part of the mean over the pairs."""
        found = losses(ctx.config, parts.pairs.responses_of(logprobs, micro))
        return found.losses.sum() / num_pairs, found.metrics()

    config = ctx.config
    lr = algorithms.learning_rate.learning_rate(config.optimizer, ctx.step, config.num_steps)
    sequences = parts.data.sequences_of(batch)
    found = ctx.engine.train_logprobs(sequences, loss, lr=lr, temperature=1.0, whole_rows=True)
    return CallOutput(metrics=found)


def validate(ctx: CallContext[P], batch: PackedBatch, *, losses: Losses[P]) -> CallOutput:
    """Take the losses without a step."""
    sequences = parts.data.sequences_of(batch)
    logprobs = ctx.engine.logprobs(sequences, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    found = losses(ctx.config, parts.pairs.responses_of(logprobs, sequences))
    return CallOutput(metrics=found.metrics())


def pair_recipe(name: str, default_config: P, *, losses: Losses[P]) -> Recipe[P]:
    """Return a recipe that trains on pairs with these losses.

    Raises:
        ValueError: these do not fit each other.
    """
    bodies: dict[str, CallBody[P]] = {
        "ref_inf": ref_inf,
        "train": partial(train, losses=losses),
        "validate": partial(validate, losses=losses),
    }
    return Recipe(
        name=name,
        default_config=default_config,
        graph=graph,
        eval_graph=eval_graph,
        models=models,
        samples_per_row=lambda config: 1,
        datasets=datasets,
        row_keys=PAIR,
        bodies=bodies,
        symptoms=optimizer_symptoms,
    )
