"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290): a reference, then a train call."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.algorithms.learning_rate import learning_rate
from realrl.algorithms.preference import implicit_reward
from realrl.api.batch import PackedBatch
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Metrics, ModelSpec, Recipe
from realrl.datasets.pairs import load_pairs, sequences_of
from realrl.recipes.dpo_config import DPOConfig
from realrl.recipes.pairs import PAIR, PER_SAMPLE, pair_losses
from realrl.recipes.symptoms import optimizer_symptoms


def graph(config: DPOConfig) -> DataflowGraph:
    return DataflowGraph(
        Call("ref_inf", "ref", CallKind.INFERENCE, PAIR, ("ref_logprobs",)),
        Call("train", "model", CallKind.TRAIN, (*PAIR, "ref_logprobs")),
        per_sample=PER_SAMPLE,
    )


def eval_graph(config: DPOConfig) -> DataflowGraph:
    return DataflowGraph(
        Call("ref_inf", "ref", CallKind.INFERENCE, PAIR, ("ref_logprobs",)),
        Call("validate", "model", CallKind.INFERENCE, (*PAIR, "ref_logprobs")),
        per_sample=PER_SAMPLE,
    )


def models(config: DPOConfig) -> dict[str, ModelSpec]:
    return {
        "model": ModelSpec(config.model, "lm", config.optimizer),
        "ref": ModelSpec(config.ref or config.model, "lm"),
    }


def ref_inf(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    found = ctx.engine.logprobs(sequences_of(batch), temperature=1.0)
    return CallOutput() if found is None else CallOutput(batch.with_keys(tokens={"ref_logprobs": found}))


def train(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    num_pairs = int(ctx.reduce(torch.tensor(len(batch))))

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        losses, metrics = _losses(logprobs, micro, ctx.config.beta)
        return losses.sum() / num_pairs, metrics

    lr = learning_rate(ctx.config.optimizer, ctx.step, ctx.config.num_steps)
    sequences = sequences_of(batch)
    found = ctx.engine.train_logprobs(sequences, loss, lr=lr, temperature=1.0, whole_rows=True)
    return CallOutput(metrics=found)


def validate(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    sequences = sequences_of(batch)
    logprobs = ctx.engine.logprobs(sequences, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    return CallOutput(metrics=_losses(logprobs, sequences, ctx.config.beta)[1])


def _losses(logprobs: Tensor, sequences: PackedBatch, beta: float) -> tuple[Tensor, Metrics]:
    own, ref = (_sums(x, sequences) for x in (logprobs, sequences["ref_logprobs"]))
    return pair_losses(implicit_reward(own, ref, beta=beta))


def _sums(logprobs: Tensor, sequences: PackedBatch) -> Tensor:
    """The log-probability of each response: `[2 P]`."""
    masked = torch.where(sequences["loss_mask"], logprobs, 0.0)
    return torch.stack([part.sum() for part in masked.split(sequences.lengths)]) if len(sequences) else masked


DPO = Recipe(
    name="dpo",
    default_config=DPOConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=load_pairs,
    row_keys=PAIR,
    bodies={"ref_inf": ref_inf, "train": train, "validate": validate},
    symptoms=optimizer_symptoms,
)
