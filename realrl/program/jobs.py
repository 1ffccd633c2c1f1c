"""What a run's jobs are made of, and the order in which their parts go."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby

from realrl.api.batch import Sample
from realrl.api.config import RunConfig, TrainingConfig
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


def compile_run(recipe: Recipe, config: RunConfig, plan: ExecutionPlan) -> Programs:
    """Both graphs of a recipe on one plan; a model of both has the home that training gives it."""
    graph, eval_graph = recipe.graph(config), recipe.eval_graph(config)
    models = {name: spec.model for name, spec in recipe.models(config).items()}
    homes = {**home_placements(eval_graph, plan), **home_placements(graph, plan)}
    if not graph.trains:
        # Weights that never change are brought once.
        models = {name: replace(model, keep_replicas=True) for name, model in models.items()}
    steps_aside = isinstance(config, TrainingConfig) and config.max_staleness > 0
    interruptible = steps_aside and needed_generation(config).interruptible
    return Programs(
        compile_program(graph, plan, homes, models, Asynchrony(steps_aside, interruptible)),
        compile_program(eval_graph, plan, homes, models, Asynchrony(steps_aside)),
        compile_save(graph, homes, models),
        compile_recovery(graph, homes, models),
        homes,
        graph.redraw.max_draws if graph.redraw else 1,
    )


def in_order(jobs: Iterable[Job], max_staleness: int) -> Iterator[Stage]:
    """The jobs one by one, but for what a job does ahead: that comes before the rest of `max_staleness`
    earlier ones, and so sees weights which are as many training steps older.

    Nothing is ahead of what recovery goes on from, whose files are written while the next job goes on.
    """
    recovery: Job | None = None
    for recovers, group in groupby(jobs, key=lambda job: job.recovers):
        if recovers:
            (recovery,) = group
            yield Stage(recovery, recovery.program.ahead, is_last=False)
            continue
        for stage in _overlapped(group, max_staleness):
            yield stage
            if recovery and stage.is_last:
                yield Stage(recovery, recovery.program.rest, is_last=True)
                recovery = None
    if recovery:  # of the run's end: nothing comes after it
        yield Stage(recovery, recovery.program.rest, is_last=True)


def _overlapped(jobs: Iterable[Job], max_staleness: int) -> Iterator[Stage]:
    waiting: deque[Job] = deque()
    for job in chain(jobs, [None]):
        if job and job.program.ahead:
            yield Stage(job, job.program.ahead, is_last=False)
        waiting += [job] if job else []
        while waiting and (not job or _is_due(waiting, max_staleness)):
            first = waiting.popleft()
            yield Stage(first, first.program.rest, is_last=True)


def _is_due(waiting: Sequence[Job], max_staleness: int) -> bool:
    """Whether the first may go: it does nothing ahead, or enough of those after it have."""
    return not waiting[0].program.ahead or sum(bool(job.program.ahead) for job in waiting) > max_staleness


def samples_of(rows: Sequence[int], samples_per_row: int, *, first_id: int = 0) -> tuple[Sample, ...]:
    """Every sample of a batch; those of one row are neighbours."""
    of_rows = (row for row in rows for _ in range(samples_per_row))
    return tuple(Sample(i, row) for i, row in enumerate(of_rows, start=first_id))
