"""Supervised fine-tuning on demonstrations: one train call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from realrl import algorithms
from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Dataset, Mean, Metrics, ModelSpec, Recipe
from realrl.recipes import parts
from realrl.recipes.parts.symptoms import optimizer_symptoms

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch

DEMONSTRATION = ("input_ids", "loss_mask")


@dataclass(frozen=True, kw_only=True)
class SFTConfig(TrainingConfig):
    """Supervised fine-tuning on demonstrations."""

    experiment: str = "sft"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    verdicts: tuple[str, ...] = ("correct",)
    """Rows that have a `verdict`, as those that `gen` writes, are learned from if it is one of these; others
    are dropped, and counted. Rows without one always are learned from. Empty: whatever the verdict."""
    truncated: Literal["drop", "learn"] = "drop"
    """Rows with `ended: false`, as `gen` writes for responses that were cut off, are dropped, and counted; or
    learned from without a token that ends them."""
    turns: Literal["last", "all"] = "last"
    """Which of the assistant's turns of a conversation are learned, with the tokens that end them: the last
    one, or all that answer a message. The chat template must keep earlier turns as they are; some leave out
    their reasoning. `data.max_response_tokens` is for the last one."""


def graph(config: SFTConfig) -> DataflowGraph:
    """Return one training step."""
    return DataflowGraph(Call("train", "model", CallKind.TRAIN, DEMONSTRATION))


def eval_graph(config: SFTConfig) -> DataflowGraph:
    """Return an evaluation: the loss on held-out demonstrations."""
    return DataflowGraph(Call("validate", "model", CallKind.INFERENCE, DEMONSTRATION))


def models(config: SFTConfig) -> dict[str, ModelSpec]:
    """Return the model that learns."""
    return {"model": ModelSpec(config.model, "lm", config.optimizer)}


def datasets(config: SFTConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training demonstrations, and the held-out ones if there are any."""
    return parts.data.load_demonstrations(config, tokenizer)


def train(ctx: CallContext[SFTConfig], batch: PackedBatch) -> CallOutput:
    """Make a step on the mean of minus the log-probability over the response tokens of all ranks."""
    num_tokens = int(ctx.reduce(batch["loss_mask"].sum()))

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return a micro-batch's part of the mean over the tokens."""
        total = -logprobs.sum()
        number = len(parts.report.responses_of(micro))
        reported = Mean(total.detach().double(), number)
        return total / num_tokens, {"loss": reported}

    config = ctx.config
    lr = algorithms.learning_rate.learning_rate(config.optimizer, ctx.step, config.num_steps)
    return CallOutput(metrics=ctx.engine.train_logprobs(batch, loss, lr=lr, temperature=1.0))


def validate(ctx: CallContext[SFTConfig], batch: PackedBatch) -> CallOutput:
    """Take the loss without a step."""
    logprobs = ctx.engine.logprobs(batch, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    total = -float(logprobs.sum())
    return CallOutput(metrics={"loss": Mean(total, float(batch["loss_mask"].sum()))})


SFT = Recipe(
    name="sft",
    default_config=SFTConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=datasets,
    row_keys=DEMONSTRATION,
    bodies={"train": train, "validate": validate},
    symptoms=optimizer_symptoms,
)
