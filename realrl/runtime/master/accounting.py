"""What a run's batches come to, in plain words."""

from __future__ import annotations

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.base.counting import counted
from realrl.ops.linear import has_bf16_products


def accounting(recipe: Recipe, config: RunConfig, plan: ExecutionPlan) -> list[str]:
    """A line for the step, one for each call that trains, and what makes the run slow, if it is known."""
    graph, rows, samples = recipe.graph(config), config.batch_size, recipe.samples_per_row(config)
    number = rows * samples
    step = f"a step: {counted(rows, 'row')} x {counted(samples, 'sample')} = {counted(number, 'sequence')}"
    if not isinstance(config, TrainingConfig):
        return [f"{step}; each row once, in order", *_slow_types(recipe, config)]
    steps, trains = config.num_steps, [c for c in graph.calls.values() if c.kind is CallKind.TRAIN]
    again = f", up to {graph.redraw.max_draws} times as many drawn" if graph.redraw else ""
    return [
        f"{step}; {counted(steps, 'step')}: {counted(steps * number, 'sequence')}{again}",
        *(_training(call, config, plan, number) for call in trains),
        *_slow_types(recipe, config),
    ]


def _training(call: ModelFunctionCall, config: RunConfig, plan: ExecutionPlan, num_sequences: int) -> str:
    num, dp = call.num_minibatches, plan[call.name].layout.dp
    each, budget = _about(num_sequences, num), config.max_tokens_per_microbatch
    share = f", {_about(num_sequences, num * dp)} on each of {dp} data-parallel ranks" if dp > 1 else ""
    updates = f"{counted(num, 'optimizer step')} of {each} sequences"
    batches = f"in micro-batches of up to {budget} tokens, or of one longer sequence"
    return f"{call.name}: {updates} a step{share}, {batches}"


def _slow_types(recipe: Recipe, config: RunConfig) -> list[str]:
    models = recipe.models(config)
    slow = [name for name, spec in models.items() if spec.model.dtype == "bfloat16"]
    if config.device != "cpu" or has_bf16_products() or not slow:
        return []
    return [f"this CPU has no products in bfloat16: {', '.join(slow)} would be faster with dtype=float32"]


def _about(number: int, parts: int) -> str:
    """A part's size; not all are equal where it does not divide."""
    return str(number // parts) if number % parts == 0 else f"about {number / parts:.1f}"
