"""The programs of a run, and the order in which the stages of its jobs begin.

jobs, one by one ──in_order()──▶ stages: what a job does ahead comes before the rest of earlier jobs
                                         evaluations may come after the next step's generation
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from realrl.api.batch import Sample
from realrl.api.config import ModelConfig, RunConfig, TrainingConfig
from realrl.api.graph import CallKind, DataflowGraph
from realrl.api.mesh import ExecutionPlan, Placement
from realrl.api.recipe import Recipe
from realrl.api.traits import needed_generation
from realrl.program.events import Job, Stage
from realrl.program.program import (
    Asynchrony,
    Program,
    compile_program,
    compile_recovery,
    compile_save,
    home_placements,
)


@dataclass(frozen=True)
class Programs:
    """The passes that a run is made of, and where each model lives."""

    step: Program
    """Of training, or of a pass over data."""
    evaluate: Program
    save: Program
    recovery: Program
    """Ahead, it copies what it writes; the rest ends once that is written."""
    homes: dict[str, Placement]
    max_draws: int = 1
    """Rows that training tries in one place of its batch."""
    changed: tuple[str, ...] = ()
    """The models that have other weights after a step."""


def compile_run(recipe: Recipe, config: RunConfig, plan: ExecutionPlan) -> Programs:
    """Compile both graphs of a recipe on one plan; a model of both has the home that training gives it."""
    graph = recipe.graph(config)
    eval_graph = recipe.eval_graph(config)
    homes = {**home_placements(eval_graph, plan), **home_placements(graph, plan)}
    models = {name: spec.model for name, spec in recipe.models(config).items()}
    if not graph.trains:
        # Weights that never change are brought once.
        models = {name: replace(model, keep_replicas=True) for name, model in models.items()}
    preemptible = isinstance(config, TrainingConfig) and config.max_staleness > 0
    interruptible = preemptible and needed_generation(config).interruptible
    overtakes = not preemptible and _generates_apart(graph, eval_graph, plan)
    asynchrony = Asynchrony(preemptible, interruptible, overtakes)
    step = compile_program(graph, plan, homes, models, asynchrony)
    overtakes = overtakes and bool(step.ahead)
    # The step that an evaluation runs along with goes first wherever it needs the same ranks.
    is_apart = preemptible or overtakes
    eval_models = _kept_for_generation(eval_graph, models) if is_apart else models
    evaluate = compile_program(eval_graph, plan, homes, eval_models, Asynchrony(is_apart))
    return Programs(
        step=step,
        evaluate=replace(evaluate, is_overtaken=overtakes),
        save=compile_save(graph, homes, models),
        recovery=compile_recovery(graph, plan, homes, models),
        homes=homes,
        max_draws=graph.redraw.max_draws if graph.redraw else 1,
        changed=graph.changed,
    )


def _kept_for_generation(
    eval_graph: DataflowGraph, models: Mapping[str, ModelConfig]
) -> dict[str, ModelConfig]:
    """Return the models; replicas that generate answers are kept for the next evaluation or step.

    To bring them again takes the weights where they are trained, so that training would wait for it, and it
    for the evaluation that uses the replica. Nothing else needs the memory of ranks that only generate.
    """
    kept = dict(models)
    for call in _generate_calls(eval_graph):
        model = eval_graph.calls[call].model
        assert model is not None, f"{call} generates without a model"
        kept[model] = replace(kept[model], keep_replicas=True)
    return kept


def _generates_apart(graph: DataflowGraph, eval_graph: DataflowGraph, plan: ExecutionPlan) -> bool:
    """Return whether evaluations generate on ranks where a step runs no model except to generate."""
    if not graph.trains:
        return False
    generating: set[int] = set()
    for name in _generate_calls(eval_graph):
        generating.update(plan[name].ranks)
    busy: set[int] = set()
    others = graph.calls.keys() - _generate_calls(graph)
    for name in others:
        if graph.calls[name].model is not None:
            busy.update(plan[name].ranks)
    return bool(generating) and generating.isdisjoint(busy)


def _generate_calls(graph: DataflowGraph) -> set[str]:
    """Return the names of the calls that generate."""
    return {name for name, call in graph.calls.items() if call.kind is CallKind.GENERATE}


def in_order(jobs: Iterable[Job], max_staleness: int) -> Iterator[Stage]:
    """Return the stages of jobs, one job after the other, except for what a job does ahead.

    That comes before the rest of `max_staleness` earlier jobs, and so sees weights that are as many training
    steps older. Nothing is ahead of a recovery point, whose files are written while the next job runs.

    An evaluation that is overtaken comes, with what waits for its result, between the next step's generation
    and the rest of that step: it has the same weights there, and runs along with the training.
    """
    overtaken: list[Job] = []
    """Evaluations that the next step overtakes, and the checkpoints after them."""
    waiting: deque[Job] = deque()
    """Jobs whose rest is still to come, in order."""
    recovery: Job | None = None
    """A recovery point that no job has followed yet."""
    for job in jobs:
        if job.recovers:
            while waiting:
                yield _last_stage(waiting.popleft())
            yield Stage(job, job.program.ahead, is_last=False)
            recovery = job
            continue

        if job.program.is_overtaken or (overtaken and not job.program.ahead):
            overtaken.append(job)
            continue

        if job.program.ahead:
            yield Stage(job, job.program.ahead, is_last=False)
        waiting += overtaken
        overtaken = []
        waiting.append(job)
        if recovery:
            waiting.append(recovery)
            recovery = None
        while waiting and _is_due(waiting, max_staleness):
            yield _last_stage(waiting.popleft())

    waiting += overtaken
    if recovery:
        waiting.append(recovery)
    while waiting:
        yield _last_stage(waiting.popleft())


def _last_stage(job: Job) -> Stage:
    return Stage(job, job.program.rest, is_last=True)


def _is_due(waiting: Sequence[Job], max_staleness: int) -> bool:
    """Whether the first job's rest may begin: nothing is to come before it, or enough has been done ahead."""
    first = waiting[0]
    if first.recovers or not first.program.ahead:
        return True
    num_ahead = sum(1 for job in waiting if job.program.ahead and not job.recovers)
    return num_ahead > max_staleness


def samples_of(rows: Sequence[int], samples_per_row: int, *, first_id: int = 0) -> tuple[Sample, ...]:
    """Return every sample of a batch; those of one row are neighbours."""
    samples: list[Sample] = []
    for row in rows:
        for _ in range(samples_per_row):
            samples.append(Sample(first_id + len(samples), row))
    return tuple(samples)
