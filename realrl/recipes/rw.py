"""A reward model out of preferences (Ouyang et al. 2022, arXiv:2203.02155, section 3.5): one train call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realrl import algorithms
from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Dataset, Metrics, ModelSpec, Recipe
from realrl.base.require import require_not_negative
from realrl.recipes import parts
from realrl.recipes.parts.calls import PAIR, PER_PAIR
from realrl.recipes.parts.symptoms import optimizer_symptoms

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch
    from realrl.recipes.parts.pairs import PairLosses

MARGINAL = (*PAIR, "margin")
PER_MARGINAL = (*PER_PAIR, "margin")


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig(TrainingConfig):
    """A reward model, trained on pairs of responses."""

    experiment: str = "rw"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-5))
    data: DataConfig = field(default_factory=DataConfig)
    """Rows may have a `margin`, a number: by how much the chosen response's score is to be the greater one
    (Llama 2, arXiv:2307.09288, section 3.2.2)."""
    centring_coef: float = 0.0
    """Weight of the square of the sum of a pair's scores, which keeps their mean near 0: for a reward that is
    added to others, or compared between prompts (arXiv:2312.09244: 0.01)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_not_negative(self, "centring_coef")


def graph(config: RewardModelConfig) -> DataflowGraph:
    """Return one training step."""
    return DataflowGraph(Call("train", "model", CallKind.TRAIN, MARGINAL), per_sample=PER_MARGINAL)


def eval_graph(config: RewardModelConfig) -> DataflowGraph:
    """Return an evaluation: the loss on held-out pairs."""
    return DataflowGraph(Call("validate", "model", CallKind.INFERENCE, MARGINAL), per_sample=PER_MARGINAL)


def models(config: RewardModelConfig) -> dict[str, ModelSpec]:
    """Return the model that learns, with a scalar head."""
    return {"model": ModelSpec(config.model, "scalar", config.optimizer)}


def datasets(config: RewardModelConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training pairs, and the held-out ones if there are any."""
    return parts.data.load_pairs(config, tokenizer, has_margins=True)


def losses(config: RewardModelConfig, scores: Tensor, sequences: PackedBatch) -> PairLosses:
    """Return the loss of each pair, of the scores of its responses, `[2 P]`."""
    chosen, rejected = parts.pairs.sides(scores)
    margins, _ = parts.pairs.sides(sequences["margin"])
    preferred = algorithms.preference.bradley_terry_loss(chosen, rejected, margin=margins)
    if not config.centring_coef:
        return parts.pairs.PairLosses(preferred, scores)
    centring = algorithms.preference.centring_loss(chosen, rejected)
    return parts.pairs.PairLosses(
        preferred + config.centring_coef * centring,
        scores,
        terms={"centring_loss": centring},
    )


def train(ctx: CallContext[RewardModelConfig], batch: PackedBatch) -> CallOutput:
    """Make a step on the mean of the pairs' losses over all ranks."""
    num_pairs = parts.pairs.num_pairs(ctx, batch)
    seen: list[Tensor] = []

    def loss(values: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return a micro-batch's part of the mean over the pairs."""
        scores = parts.pairs.scores_at_ends(values, micro)
        seen.append(scores.detach())
        found = losses(ctx.config, scores, micro)
        return found.losses.sum() / num_pairs, found.metrics()

    config = ctx.config
    lr = algorithms.learning_rate.learning_rate(config.optimizer, ctx.step, config.num_steps)
    sequences = parts.data.sequences_of(batch)
    metrics = ctx.engine.train_values(sequences, loss, lr=lr, whole_rows=True)
    # A pipeline's earlier stages have seen no scores.
    scores = parts.pairs.joined(seen)
    return CallOutput(metrics={**metrics, **parts.score_scale.remember(ctx, scores)})


def validate(ctx: CallContext[RewardModelConfig], batch: PackedBatch) -> CallOutput:
    """Take the losses without a step."""
    sequences = parts.data.sequences_of(batch)
    values = ctx.engine.values(sequences)
    if values is None:
        return CallOutput()
    found = losses(ctx.config, parts.pairs.scores_at_ends(values, sequences), sequences)
    return CallOutput(metrics=found.metrics())


RW = Recipe(
    name="rw",
    default_config=RewardModelConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=datasets,
    row_keys=MARGINAL,
    bodies={"train": train, "validate": validate},
    symptoms=optimizer_symptoms,
    beside_weights=lambda config, metrics: parts.score_scale.file_of(metrics),
)
