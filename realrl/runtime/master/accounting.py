"""The size of a run's batches and steps, in plain words."""

from __future__ import annotations

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.evals import EvalConfig
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Recipe
from realrl.api.traits import evals_of
from realrl.base.counting import counted
from realrl.ops.linear import has_bf16_products


def accounting(recipe: Recipe, config: RunConfig, plan: ExecutionPlan) -> list[str]:
    """Return a line for the step, one for each call that trains, and what is known to make the run slow."""
    num_rows = config.batch_size
    samples_per_row = recipe.samples_per_row(config)
    number = num_rows * samples_per_row
    rows = counted(num_rows, "row")
    samples = counted(samples_per_row, "sample")
    step = f"a step: {rows} x {samples} = {counted(number, 'sequence')}"
    if not isinstance(config, TrainingConfig):
        return [f"{step}; each row once, in order", *_slow_types(recipe, config)]

    graph = recipe.graph(config)
    again = ""
    if graph.redraw:
        again = f", up to {graph.redraw.max_draws} times as many drawn"
    steps = counted(config.num_steps, "step")
    in_all = counted(config.num_steps * number, "sequence")
    lines = [f"{step}; {steps}: {in_all}{again}"]
    for call in graph.calls.values():
        if call.kind is CallKind.TRAIN:
            lines.append(_training(call, config, plan, number))
    for name, each in evals_of(config).items():
        lines.append(_evaluation(name, each, config.eval_every))
    return lines + _slow_types(recipe, config)


def _evaluation(name: str, each: EvalConfig, eval_every: int) -> str:
    """Describe the answers of the evaluations on a set."""
    period = eval_every if each.every is None else each.every
    when = f"every {counted(period, 'step')}" if period else "at the start and the end"
    how = "greedy" if each.is_greedy else f"at temperature {each.temperature:g}"
    return f"evaluation on {name}: {counted(each.n, 'answer')} to each problem, {how}, {when}"


def _training(call: ModelFunctionCall, config: RunConfig, plan: ExecutionPlan, num_sequences: int) -> str:
    """Describe the optimizer steps of a call in each training step."""
    num = call.num_minibatches
    each = _about(num_sequences, num)
    updates = f"{counted(num, 'optimizer step')} of {each} sequences"

    share = ""
    dp = plan[call.name].layout.dp
    if dp > 1:
        share = f", {_about(num_sequences, num * dp)} on each of {dp} data-parallel ranks"

    budget = config.max_tokens_per_microbatch
    batches = f"in micro-batches of up to {budget} tokens, or of one longer sequence"
    return f"{call.name}: {updates} a step{share}, {batches}"


def _slow_types(recipe: Recipe, config: RunConfig) -> list[str]:
    """Return a line that names models whose dtype is slow here; empty if there is none."""
    slow = [name for name, spec in recipe.models(config).items() if spec.model.dtype == "bfloat16"]
    if config.device != "cpu" or has_bf16_products() or not slow:
        return []
    return [f"this CPU has no products in bfloat16: {', '.join(slow)} would be faster with dtype=float32"]


def _about(number: int, parts: int) -> str:
    """Return the size of a part; where `number` does not divide, parts differ."""
    if number % parts == 0:
        return str(number // parts)
    return f"about {number / parts:.1f}"
