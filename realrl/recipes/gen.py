"""Answers to prompts, as many of each as asked for, graded where there are solutions: nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from realrl.api.batch import PackedBatch, concatenated
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.graph import ModelFunctionCall as Call
from realrl.api.recipe import CallContext, CallOutput, Metrics, ModelSpec, Recipe, joined
from realrl.datasets.end_tokens import stopping
from realrl.datasets.prompts import PromptDataset, load_questions
from realrl.datasets.stop_rules import ends_by
from realrl.recipes.gen_config import GenConfig
from realrl.recipes.grading import Response, response_lengths, responses_of
from realrl.recipes.ppo_report import response_metrics, verdict_metrics
from realrl.recipes.sample_records import token_texts, with_tokens
from realrl.recipes.symptoms import response_symptoms
from realrl.rewards.budget import seconds_for
from realrl.rewards.math import check_all
from realrl.rewards.verdict import Checked

RESPONSE = ("input_ids", "loss_mask", "ended")
ROWS_PER_TOKENS = 16
"""Of so many rows, the first one's responses are written token by token, too."""


def graph(config: GenConfig) -> DataflowGraph:
    """A batch of the pass."""
    return DataflowGraph(
        Call("generate", "model", CallKind.GENERATE, ("prompts",), RESPONSE, engine=config.generation.engine),
        Call("grade", None, CallKind.COMPUTE, RESPONSE),
        per_sample=("ended",),
    )


def models(config: GenConfig) -> dict[str, ModelSpec]:
    return {"model": ModelSpec(config.model)}


def generate(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    """The greedy answers, then the sampled ones."""
    config = stopping(ctx.config.generation, ctx.tokenizer, ctx.config.data.template)
    # The ids of a pass's samples are its own: they alone tell one sample's seed from another's.
    options = {"seed": ctx.config.seed, "step": 0, "ends": ends_by(config, ctx.tokenizer)}
    options |= {"breaks": ctx.breaks}
    parts = [
        ctx.engine.generate(batch.select(_which(ctx.config, batch, greedy)), how, **options)
        for greedy, how in ((True, config.greedy()), (False, config))
        if (ctx.config.greedy if greedy else ctx.config.num_samples)
    ]
    return CallOutput(concatenated(*parts))


def grade(ctx: CallContext, batch: PackedBatch) -> CallOutput:
    """What is written of each answer, and what a batch comes to."""
    responses = responses_of(ctx, batch)
    graded = {i: response for i, response in enumerate(responses) if response.solutions}
    found = check_all(
        [r.response for r in graded.values()],
        [r.solutions for r in graded.values()],
        progress=ctx.progress,
        budget_s=seconds_for(len(graded), ctx.config.call_timeout_s),
    )
    checked = dict(zip(graded, found))
    metrics = joined(
        response_metrics(batch, [r.response for r in responses]),
        *_verdict_metrics(ctx.config, batch, checked),
    )
    return CallOutput(metrics=metrics, records=_records(ctx, batch, responses, checked))


def _verdict_metrics(config: GenConfig, batch: PackedBatch, checked: dict[int, Checked]) -> Iterator[Metrics]:
    """Of the greedy answers that are graded, and of the sampled ones."""
    for greedy in (True, False):
        indices = [i for i in _which(config, batch, greedy) if i in checked]
        verdicts = [checked[i].verdict for i in indices]
        yield verdict_metrics(verdicts, batch.select(indices), evaluating=greedy)


def _records(
    ctx: CallContext, batch: PackedBatch, responses: list[Response], checked: dict[int, Checked]
) -> list[dict[str, Any]]:
    lengths, ended = response_lengths(batch).tolist(), batch["ended"].tolist()
    tokens = _tokens(ctx, batch)
    return [
        {
            "query_id": ctx.dataset.query_id(sample.row),
            "row": sample.row,
            "sample": sample.id % ctx.config.samples_per_row,
            "greedy": _is_greedy(ctx.config, sample.id),
            **responses[i]._asdict(),
            "num_tokens": lengths[i],
            "ended": ended[i],
            **tokens.get(i, {}),
            **({"verdict": checked[i].verdict.value, "answer": checked[i].answer} if i in checked else {}),
        }
        for i, sample in enumerate(batch.samples)
    ]


def _tokens(ctx: CallContext, batch: PackedBatch) -> dict[int, dict[str, Any]]:
    """Some responses token by token, by their place in `batch`: the same ones however the pass is cut into
    batches."""
    samples_per_row = ctx.config.samples_per_row
    columns = zip(batch.samples, batch.unpacked("input_ids"), batch.unpacked("loss_mask"))
    return {
        i: {"tokens": token_texts(ctx.tokenizer, ids[mask])}
        for i, (sample, ids, mask) in enumerate(columns)
        if with_tokens(sample, ROWS_PER_TOKENS * samples_per_row)
    }


def _which(config: GenConfig, batch: PackedBatch, greedy: bool) -> list[int]:
    """Where the batch's samples are that are drawn so."""
    return [i for i, sample in enumerate(batch.samples) if _is_greedy(config, sample.id) == greedy]


def _is_greedy(config: GenConfig, sample: int) -> bool:
    """A row's first answer, if one of them is."""
    return config.greedy and sample % config.samples_per_row == 0


def datasets(config: GenConfig, tokenizer: Any) -> tuple[PromptDataset, None]:
    return load_questions(config.data, tokenizer), None


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
