"""A reward model out of preferences (Ouyang et al. 2022, arXiv:2203.02155, section 3.5): one train call."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.learning_rate import learning_rate
from realrl.api.batch import PackedBatch
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Metrics, ModelSpec, Recipe
from realrl.datasets.pairs import load_pairs, sequences_of
from realrl.recipes.pairs import PAIR, PER_SAMPLE, pair_losses, scores_at_ends
from realrl.recipes.rw_config import RewardModelConfig
from realrl.recipes.symptoms import optimizer_symptoms


def graph(config: RewardModelConfig) -> DataflowGraph:
    return DataflowGraph(Call("train", "model", CallKind.TRAIN, PAIR), per_sample=PER_SAMPLE)


def eval_graph(config: RewardModelConfig) -> DataflowGraph:
    return DataflowGraph(Call("validate", "model", CallKind.INFERENCE, PAIR), per_sample=PER_SAMPLE)


def models(config: RewardModelConfig) -> dict[str, ModelSpec]:
    return {"model": ModelSpec(config.model, "scalar", config.optimizer)}


def train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    num_pairs = int(ctx.reduce(torch.tensor(len(batch))))

    def loss(values: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        losses, metrics = pair_losses(scores_at_ends(values, micro))
        return losses.sum() / num_pairs, metrics

    lr = learning_rate(ctx.config.optimizer, ctx.step, ctx.config.num_steps)
    return CallOutput(metrics=ctx.engine.train_values(sequences_of(batch), loss, lr=lr, whole_rows=True))


def validate(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    sequences = sequences_of(batch)
    values = ctx.engine.values(sequences)
    if values is None:
        return CallOutput()
    return CallOutput(metrics=pair_losses(scores_at_ends(values, sequences))[1])


RW = Recipe(
    name="rw",
    default_config=RewardModelConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=load_pairs,
    row_keys=PAIR,
    bodies={"train": train, "validate": validate},
    symptoms=optimizer_symptoms,
)
