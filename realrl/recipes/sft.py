"""Supervised fine-tuning on demonstrations: one train call."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from realrl.algorithms.schedule import learning_rate
from realrl.api.batch import PackedBatch
from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Mean, ModelSpec, Recipe
from realrl.datasets.demonstrations import load_demonstrations


@dataclass(frozen=True, kw_only=True)
class SFTConfig(TrainingConfig):
    """Supervised fine-tuning on demonstrations."""

    experiment: str = "sft"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)


DEMONSTRATION = ("input_ids", "loss_mask")


def graph(config: SFTConfig) -> DataflowGraph:
    return DataflowGraph(Call("train", "model", CallKind.TRAIN, DEMONSTRATION))


def eval_graph(config: SFTConfig) -> DataflowGraph:
    return DataflowGraph(Call("validate", "model", CallKind.INFERENCE, DEMONSTRATION))


def models(config: SFTConfig) -> dict[str, ModelSpec]:
    return {"model": ModelSpec(config.model, "lm", config.optimizer)}


def train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    num_tokens = int(ctx.reduce(batch["loss_mask"].sum()))

    def loss(logprobs: Tensor, micro: PackedBatch):
        total = -logprobs.sum()
        return total / num_tokens, {"loss": Mean(float(total.detach()), float(micro["loss_mask"].sum()))}

    lr = learning_rate(ctx.config.optimizer, ctx.step, ctx.config.num_steps)
    return CallOutput(metrics=ctx.engine.train_logprobs(batch, loss, lr=lr, temperature=1.0))


def validate(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    logprobs = ctx.engine.logprobs(batch, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    return CallOutput(metrics={"loss": Mean(-float(logprobs.sum()), float(batch["loss_mask"].sum()))})


SFT = Recipe(
    name="sft",
    default_config=SFTConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=load_demonstrations,
    bodies={"train": train, "validate": validate},
)
