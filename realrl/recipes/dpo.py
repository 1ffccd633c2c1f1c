"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290): a reference, then a train call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realrl import algorithms
from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Dataset, Metrics, ModelSpec, Recipe
from realrl.recipes import parts
from realrl.recipes.parts.calls import PAIR, PER_PAIR
from realrl.recipes.parts.symptoms import optimizer_symptoms

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch


@dataclass(frozen=True, kw_only=True)
class DPOConfig(TrainingConfig):
    """Direct preference optimisation on pairs of responses."""

    experiment: str = "dpo"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    ref: ModelConfig | None = None
    """The reference policy; left out, the model as it was loaded."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-6))
    data: DataConfig = field(default_factory=DataConfig)
    beta: float = 0.1
    """How far the model may move from the reference: the less, the further."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta <= 0:
            raise ValueError(f"beta must be positive, got {self.beta}")


def graph(config: DPOConfig) -> DataflowGraph:
    """Return one training step."""
    return DataflowGraph(
        Call("ref_inf", "ref", CallKind.INFERENCE, PAIR, ("ref_logprobs",)),
        Call("train", "model", CallKind.TRAIN, (*PAIR, "ref_logprobs")),
        per_sample=PER_PAIR,
    )


def eval_graph(config: DPOConfig) -> DataflowGraph:
    """Return an evaluation: the loss on held-out pairs."""
    return DataflowGraph(
        Call("ref_inf", "ref", CallKind.INFERENCE, PAIR, ("ref_logprobs",)),
        Call("validate", "model", CallKind.INFERENCE, (*PAIR, "ref_logprobs")),
        per_sample=PER_PAIR,
    )


def models(config: DPOConfig) -> dict[str, ModelSpec]:
    """Return the model that learns, and the reference."""
    return {
        "model": ModelSpec(config.model, "lm", config.optimizer),
        "ref": ModelSpec(config.ref or config.model, "lm"),
    }


def datasets(config: DPOConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training pairs, and the held-out ones if there are any."""
    return parts.data.load_pairs(config, tokenizer)


def ref_inf(ctx: CallContext[DPOConfig], batch: PackedBatch) -> CallOutput:
    """Take the reference's log-probability of each token of both responses."""
    found = ctx.engine.logprobs(parts.data.sequences_of(batch), temperature=1.0)
    if found is None:
        return CallOutput()
    return CallOutput(batch.with_keys(tokens={"ref_logprobs": found}))


def train(ctx: CallContext[DPOConfig], batch: PackedBatch) -> CallOutput:
    """Make a step on the mean of the pairs' losses over all ranks (eq. 7)."""
    num_pairs = parts.pairs.num_pairs(ctx, batch)

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return a micro-batch's part of the mean over the pairs."""
        losses, metrics = _losses(logprobs, micro, ctx.config.beta)
        return losses.sum() / num_pairs, metrics

    config = ctx.config
    lr = algorithms.learning_rate.learning_rate(config.optimizer, ctx.step, config.num_steps)
    sequences = parts.data.sequences_of(batch)
    found = ctx.engine.train_logprobs(sequences, loss, lr=lr, temperature=1.0, whole_rows=True)
    return CallOutput(metrics=found)


def validate(ctx: CallContext[DPOConfig], batch: PackedBatch) -> CallOutput:
    """Take the losses without a step."""
    sequences = parts.data.sequences_of(batch)
    logprobs = ctx.engine.logprobs(sequences, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    _, metrics = _losses(logprobs, sequences, ctx.config.beta)
    return CallOutput(metrics=metrics)


def _losses(logprobs: Tensor, sequences: PackedBatch, beta: float) -> tuple[Tensor, Metrics]:
    """Return each pair's loss `[P]`, of the implicit rewards of its responses."""
    own = parts.pairs.response_sums(logprobs, sequences)
    ref = parts.pairs.response_sums(sequences["ref_logprobs"], sequences)
    return parts.pairs.pair_losses(algorithms.preference.implicit_reward(own, ref, beta=beta))


DPO = Recipe(
    name="dpo",
    default_config=DPOConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=datasets,
    row_keys=PAIR,
    bodies={"ref_inf": ref_inf, "train": train, "validate": validate},
    symptoms=optimizer_symptoms,
)
