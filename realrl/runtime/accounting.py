"""What a run's batches come to, in plain words."""

from __future__ import annotations

from typing import Any

from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe


def accounting(recipe: Recipe, config: Any, plan: ExecutionPlan) -> list[str]:
    """A line for the step, and one for each call that trains."""
    rows, samples = config.batch_size, recipe.samples_per_row(config)
    number = rows * samples
    step = f"a step: {rows} rows x {samples} samples = {number} sequences"
    trains = [call for call in recipe.graph(config).calls.values() if call.kind is CallKind.TRAIN]
    if not trains:
        return [f"{step}; each row once, in order"]
    steps = config.num_steps
    return [
        f"{step}; {steps} steps: {steps * number} sequences",
        *(_training(call, config, plan, number) for call in trains),
    ]


def _training(call: ModelFunctionCall, config: Any, plan: ExecutionPlan, num_sequences: int) -> str:
    num, dp = call.num_minibatches, plan[call.name].layout.dp
    each, budget = _about(num_sequences, num), config.max_tokens_per_microbatch
    share = f", {_about(num_sequences, num * dp)} on each of {dp} data-parallel ranks" if dp > 1 else ""
    updates = f"{num} optimizer step{'s' if num > 1 else ''} of {each} sequences"
    return f"{call.name}: {updates} a step{share}, in micro-batches of up to {budget} tokens"


def _about(number: int, parts: int) -> str:
    """A part's size; not all are equal where it does not divide."""
    return str(number // parts) if number % parts == 0 else f"about {number / parts:.1f}"
