"""Answers to prompts, as many of each as asked for, graded where there are solutions: nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from realrl.api.config import GenerationConfig, ModelConfig, RunConfig
from realrl.api.data import DataConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Dataset, Metrics, ModelSpec, Recipe, joined
from realrl.base.require import require_at_most
from realrl.recipes import parts
from realrl.recipes.parts import grading
from realrl.recipes.parts.symptoms import response_symptoms
from realrl.rewards.budget import seconds_for
from realrl.rewards.math import check_all

if TYPE_CHECKING:
    from realrl.api.batch import PackedBatch
    from realrl.recipes.parts.checks import Response
    from realrl.rewards.verdict import Checked

RESPONSE = ("input_ids", "loss_mask", "ended")
ROWS_PER_TOKENS = 16
"""Of so many rows, the first one's responses are written token by token, too."""


@dataclass(frozen=True, kw_only=True)
class GenConfig(RunConfig):
    """Answers to prompts, written to a file and graded where there are solutions; nothing is trained."""

    experiment: str = "gen"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    num_samples: int = 1
    """Sampled answers to each prompt."""
    greedy: bool = False
    """One greedy answer to each before these."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_most(self, 2**16, "num_samples")
        if self.num_samples < 0 or not self.samples_per_row:
            raise ValueError(
                f"num_samples must be at least 1, or 0 with greedy: true, got {self.num_samples}"
            )
        if self.generation.temperature == 0 and self.samples_per_row > 1:
            raise ValueError(
                "num_samples: with generation.temperature=0 all answers to a prompt are the same; raise that,"
                " or leave num_samples 1 and greedy false"
            )
        if self.data.eval_path is not None:
            raise ValueError("data.eval_path: nothing is trained here; give the file as data.path")
        if self.generation.interruptible:
            raise ValueError(
                "generation.interruptible: nothing is trained here, so no new weights come; leave this false"
            )

    @property
    def samples_per_row(self) -> int:
        """Answers to each prompt."""
        return self.num_samples + self.greedy


def graph(config: GenConfig) -> DataflowGraph:
    """Return a batch of the pass."""
    engine = config.generation.engine
    return DataflowGraph(
        Call("generate", "model", CallKind.GENERATE, ("prompts",), RESPONSE, engine=engine),
        Call("grade", None, CallKind.COMPUTE, RESPONSE),
        per_sample=("ended",),
    )


def models(config: GenConfig) -> dict[str, ModelSpec]:
    """Return the model that answers."""
    return {"model": ModelSpec(config.model)}


def datasets(config: GenConfig, tokenizer: Any) -> tuple[Dataset, None]:
    """Return the prompts."""
    return parts.data.load_questions(config.data, tokenizer), None


def generate(ctx: CallContext[GenConfig], batch: PackedBatch) -> CallOutput:
    """Sample the greedy answers, then the others."""
    config = ctx.config
    generation = parts.data.stopping(
        config.generation,
        ctx.tokenizer,
        config.data.template,
    )
    ends = parts.data.ends_by(generation, ctx.tokenizer)
    answers = []
    for greedy, how in ((True, generation.greedy()), (False, generation)):
        if not (config.greedy if greedy else config.num_samples):
            continue
        part = batch.select(_which(config, batch, greedy))
        # The ids of a pass's samples are its own: they alone tell one sample's seed from another's.
        found = ctx.engine.generate(
            part,
            how,
            seed=config.seed,
            step=0,
            ends=ends,
            preemption=ctx.preemption,
        )
        answers.append(found)
    return CallOutput(parts.data.concatenated(*answers))


def grade(ctx: CallContext[GenConfig], batch: PackedBatch) -> CallOutput:
    """Grade the answers that have solutions, and write down all of them."""
    responses = grading.responses_of(ctx, batch)
    graded = [place for place, response in enumerate(responses) if response.solutions]
    found = check_all(
        [responses[place].response for place in graded],
        [responses[place].solutions for place in graded],
        progress=ctx.progress,
        budget_s=seconds_for(len(graded), ctx.config.call_timeout_s),
    )
    checked = dict(zip(graded, found))
    texts = [response.response for response in responses]
    metrics = joined(
        parts.report.response_metrics(batch, texts),
        _verdict_metrics(ctx.config, batch, checked, greedy=True),
        _verdict_metrics(ctx.config, batch, checked, greedy=False),
    )
    return CallOutput(metrics=metrics, records=_records(ctx, batch, responses, checked))


def _verdict_metrics(
    config: GenConfig, batch: PackedBatch, checked: Mapping[int, Checked], *, greedy: bool
) -> Metrics:
    """Return what the verdicts of the greedy answers, or of the sampled ones, come to."""
    drawn_so = _which(config, batch, greedy)
    places = [place for place in drawn_so if place in checked]
    verdicts = [checked[place].verdict for place in places]
    accuracy = "greedy_accuracy" if greedy else "accuracy"
    return parts.report.verdict_metrics(verdicts, batch.select(places), accuracy=accuracy)


def _records(
    ctx: CallContext[GenConfig],
    batch: PackedBatch,
    responses: Sequence[Response],
    checked: Mapping[int, Checked],
) -> list[dict[str, Any]]:
    """Return what is written of each answer."""
    lengths = parts.checks.response_lengths(batch).tolist()
    ended = batch["ended"].tolist()
    tokens = _tokens(ctx, batch)
    records = []
    for place, sample in enumerate(batch.samples):
        record: dict[str, Any] = {
            "query_id": ctx.dataset.query_id(sample.row),
            "row": sample.row,
            "sample": sample.id % ctx.config.samples_per_row,
            "greedy": _is_greedy(ctx.config, sample.id),
        }
        record |= responses[place]._asdict()
        record |= {"num_tokens": lengths[place], "ended": ended[place]}
        if place in tokens:
            record["tokens"] = tokens[place]
        if place in checked:
            record["verdict"] = checked[place].verdict.value
            record["answer"] = checked[place].answer
        records.append(record)
    return records


def _tokens(ctx: CallContext[GenConfig], batch: PackedBatch) -> dict[int, list[str]]:
    """Return some responses token by token, by their place in `batch`.

    They are the same ones however the pass is cut into batches.
    """
    every = ROWS_PER_TOKENS * ctx.config.samples_per_row
    ids = batch.unpacked("input_ids")
    masks = batch.unpacked("loss_mask")
    found: dict[int, list[str]] = {}
    for place, sample in enumerate(batch.samples):
        if parts.sample_records.with_tokens(sample, every):
            response = ids[place][masks[place]]
            found[place] = parts.sample_records.token_texts(ctx.tokenizer, response)
    return found


def _which(config: GenConfig, batch: PackedBatch, greedy: bool) -> list[int]:
    """Return the places of the batch's greedy samples, or of the others."""
    places: list[int] = []
    for place, sample in enumerate(batch.samples):
        if _is_greedy(config, sample.id) == greedy:
            places.append(place)
    return places


def _is_greedy(config: GenConfig, sample: int) -> bool:
    """Whether a sample is its row's first answer, and that one is greedy."""
    return config.greedy and sample % config.samples_per_row == 0


GEN = Recipe(
    name="gen",
    default_config=GenConfig(),
    graph=graph,
    eval_graph=lambda config: DataflowGraph(),
    models=models,
    samples_per_row=lambda config: config.samples_per_row,
    datasets=datasets,
    row_keys=("prompts",),
    bodies={"generate": generate, "grade": grade},
    symptoms=response_symptoms,
)
