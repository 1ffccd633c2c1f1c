"""KTO: learn from responses that are desirable or not (Ethayarajh et al. 2024, arXiv:2402.01306).

ref_inf ──▶ kl_inf ──▶ train

A row needs no second response, but a label. How far the policy has moved from the reference is estimated on
responses to other prompts, the KL of eq. 8, which is not trained on. TRL puts the response of a row's
predecessor in the batch to the row's prompt, and takes batches in the order of the rows. Here the response is
that of the nearest row before it in the data set that has another prompt; batches are drawn as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realrl import algorithms
from realrl.api.config import ModelConfig, OptimizerConfig, TrainingConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.metrics import Metric
from realrl.api.recipe import CallContext, CallOutput, Dataset, Mean, Metrics, ModelSpec, Recipe
from realrl.base.require import require, require_not_negative
from realrl.recipes import parts
from realrl.recipes.parts.calls import LABELLED, PER_LABELLED
from realrl.recipes.parts.symptoms import optimizer_symptoms

if TYPE_CHECKING:
    from torch import Tensor

    from realrl.api.batch import PackedBatch

MEASURED = (*LABELLED, "ref_logprobs", "kl_log_ratios")


@dataclass(frozen=True, kw_only=True)
class KTOConfig(TrainingConfig):
    """Learn from responses that are desirable or not, one by one."""

    experiment: str = "kto"
    batch_size: int = 16
    model: ModelConfig = field(default_factory=ModelConfig)
    ref: ModelConfig | None = None
    """The reference policy; left out, the model as it was loaded."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-6))
    data: DataConfig = field(default_factory=DataConfig)
    beta: float = 0.1
    """How far the model may move from the reference: the less, the further."""
    desirable_weight: float = 1.0
    """Weight of desirable responses in the loss. The paper has the sums of weights of both kinds differ by a
    third at most."""
    undesirable_weight: float = 1.0
    """Weight of the others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive, got {self.beta}")
        require_not_negative(self, "desirable_weight", "undesirable_weight")
        require(
            self.desirable_weight + self.undesirable_weight > 0,
            "desirable_weight and undesirable_weight are both 0: nothing would be learned; raise one",
        )


def graph(config: KTOConfig) -> DataflowGraph:
    """Return one training step."""
    return _graph(Call("train", "model", CallKind.TRAIN, MEASURED))


def eval_graph(config: KTOConfig) -> DataflowGraph:
    """Return an evaluation: the loss on held-out responses."""
    return _graph(Call("validate", "model", CallKind.INFERENCE, MEASURED))


def _graph(last: Call) -> DataflowGraph:
    """Return the calls that measure the reference and the distance from it, and then `last`."""
    return DataflowGraph(
        Call("ref_inf", "ref", CallKind.INFERENCE, LABELLED, ("ref_logprobs",)),
        Call("kl_inf", "model", CallKind.INFERENCE, (*LABELLED, "ref_logprobs"), ("kl_log_ratios",)),
        last,
        per_sample=PER_LABELLED,
    )


def models(config: KTOConfig) -> dict[str, ModelSpec]:
    """Return the model that learns, and the reference."""
    return {
        "model": ModelSpec(config.model, "lm", config.optimizer),
        "ref": ModelSpec(config.ref or config.model, "lm"),
    }


def datasets(config: KTOConfig, tokenizer: Any) -> tuple[Dataset, Dataset | None]:
    """Return the training rows, and the held-out ones if there are any."""
    return parts.data.load_labelled(config, tokenizer)


def ref_inf(ctx: CallContext[KTOConfig], batch: PackedBatch) -> CallOutput:
    """Take the reference's log-probability of each token of both responses to a prompt."""
    found = ctx.engine.logprobs(_sequences(batch), temperature=1.0)
    if found is None:
        return CallOutput()
    return CallOutput(batch.with_keys(tokens={"ref_logprobs": found}))


def kl_inf(ctx: CallContext[KTOConfig], batch: PackedBatch) -> CallOutput:
    """Take the log-ratio of each response of another prompt, before the policy is trained."""
    others = _every_second(_sequences(batch), begin=1)
    logprobs = ctx.engine.logprobs(others, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    return CallOutput(batch.with_keys(per_sample={"kl_log_ratios": _log_ratios(logprobs, others)}))


def train(ctx: CallContext[KTOConfig], batch: PackedBatch) -> CallOutput:
    """Make a step on the mean of the responses' losses over all ranks."""
    kl, num_responses = _kl(ctx, batch)

    def loss(logprobs: Tensor, micro: PackedBatch) -> tuple[Tensor, Metrics]:
        """Return a micro-batch's part of the mean over the responses."""
        losses, metrics = _losses(ctx.config, logprobs, micro, kl)
        return losses.sum() / num_responses, metrics

    config = ctx.config
    lr = algorithms.learning_rate.learning_rate(config.optimizer, ctx.step, config.num_steps)
    own = _every_second(_sequences(batch), begin=0)
    found = ctx.engine.train_logprobs(own, loss, lr=lr, temperature=1.0)
    return CallOutput(metrics={**found, "kl": Mean(kl, 1.0)})


def validate(ctx: CallContext[KTOConfig], batch: PackedBatch) -> CallOutput:
    """Take the losses without a step."""
    kl, _ = _kl(ctx, batch)
    own = _every_second(_sequences(batch), begin=0)
    logprobs = ctx.engine.logprobs(own, temperature=1.0)
    if logprobs is None:
        return CallOutput()
    _, metrics = _losses(ctx.config, logprobs, own, kl)
    return CallOutput(metrics={**metrics, "kl": Mean(kl, 1.0)})


def _kl(ctx: CallContext[KTOConfig], batch: PackedBatch) -> tuple[float, float]:
    """Return the distance from the reference, at least 0, and the responses of the batch on all ranks.

    Collective: over the ranks of `ctx.reduce`.
    """
    log_ratios = batch["kl_log_ratios"].double()
    own = log_ratios.new_tensor([float(log_ratios.sum()), float(len(batch))])
    total, number = ctx.reduce(own).tolist()
    return max(total / max(number, 1.0), 0.0), number


def _losses(
    config: KTOConfig, logprobs: Tensor, own: PackedBatch, kl: float
) -> tuple[Tensor, dict[str, Metric]]:
    """Return the loss of each response (eq. 8), and what is reported: the implicit rewards of both kinds."""
    log_ratios = _log_ratios(logprobs, own)
    is_desirable = own["is_desirable"]
    values = algorithms.preference.kto_loss(log_ratios, is_desirable, kl, beta=config.beta)
    losses = values * config.undesirable_weight
    losses = losses.where(~is_desirable, values * config.desirable_weight)

    rewards = config.beta * log_ratios.detach().double()
    desirable = rewards[is_desirable]
    undesirable = rewards[~is_desirable]
    return losses, {
        "loss": Mean(losses.detach().double().sum(), len(losses)),
        "desirable_reward": Mean(desirable.sum(), len(desirable)),
        "undesirable_reward": Mean(undesirable.sum(), len(undesirable)),
    }


def _log_ratios(logprobs: Tensor, sequences: PackedBatch) -> Tensor:
    """Return the log-ratio of each response, from the log-probabilities of the tokens of all: `[R]`."""
    own = parts.pairs.response_sums(logprobs, sequences)
    ref = parts.pairs.response_sums(sequences["ref_logprobs"], sequences)
    return own - ref


def _sequences(batch: PackedBatch) -> PackedBatch:
    """Return two samples per row: the prompt with its own response, and with that of another prompt."""
    return parts.data.sequences_of(batch, first="own_tokens")


def _every_second(sequences: PackedBatch, *, begin: int) -> PackedBatch:
    """Return every second sample, from `begin` on."""
    return sequences.select(range(begin, len(sequences), 2))


KTO = Recipe(
    name="kto",
    default_config=KTOConfig(),
    graph=graph,
    eval_graph=eval_graph,
    models=models,
    samples_per_row=lambda config: 1,
    datasets=datasets,
    row_keys=LABELLED,
    bodies={"ref_inf": ref_inf, "kl_inf": kl_inf, "train": train, "validate": validate},
    symptoms=optimizer_symptoms,
)
