"""Supervised fine-tuning on demonstrations: one train call."""

from __future__ import annotations

from torch import Tensor

from realrl.algorithms.learning_rate import learning_rate
from realrl.api.batch import PackedBatch
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Mean, ModelSpec, Recipe
from realrl.datasets.demonstrations import load_demonstrations
from realrl.recipes.sft_config import SFTConfig
from realrl.recipes.symptoms import optimizer_symptoms

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
        return total / num_tokens, {"loss": Mean(total.detach().double(), len(micro.responses))}

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
    row_keys=DEMONSTRATION,
    bodies={"train": train, "validate": validate},
    symptoms=optimizer_symptoms,
)
