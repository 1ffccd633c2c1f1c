"""What a run does, in order: training steps, evaluations, checkpoints."""

from __future__ import annotations

import random
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from realrl.api.batch import Sample
from realrl.api.mesh import ExecutionPlan, Placement
from realrl.api.recipe import Dataset, Recipe
from realrl.base.seeding import derive_seed
from realrl.runtime.program import Asynchrony, Program, compile_program, compile_save, home_placements
from realrl.runtime.scheduler import Job, Stage


@dataclass(frozen=True)
class Programs:
    """The passes that a run is made of, and where each model lives."""

    train: Program
    evaluate: Program
    save: Program
    homes: dict[str, Placement]
    max_draws: int = 1
    """Rows that training tries in one place of its batch."""


def compile_run(recipe: Recipe, config: Any, plan: ExecutionPlan) -> Programs:
    """Both graphs of a recipe on one plan; a model of both has the home that training gives it."""
    graph, eval_graph = recipe.graph(config), recipe.eval_graph(config)
    models = {name: spec.model for name, spec in recipe.models(config).items()}
    homes = {**home_placements(eval_graph, plan), **home_placements(graph, plan)}
    steps_aside = config.max_staleness > 0
    interruptible = steps_aside and config.generation.interruptible
    return Programs(
        compile_program(graph, plan, homes, models, Asynchrony(steps_aside, interruptible)),
        compile_program(eval_graph, plan, homes, models, Asynchrony(steps_aside)),
        compile_save(graph, homes, models),
        homes,
        graph.redraw.max_draws if graph.redraw else 1,
    )


def checkpoint_directory(run_directory: Path, step: int) -> Path:
    return run_directory / "checkpoints" / f"step-{step}"


def partial_directory(run_directory: Path, step: int) -> Path:
    """Where a checkpoint is written before it is whole."""
    return run_directory / "checkpoints" / f".step-{step}.partial"


def remove_partial(run_directory: Path) -> None:
    """Remove checkpoints that never became whole."""
    for partial in run_directory.glob("checkpoints/.step-*.partial"):
        shutil.rmtree(partial)


@dataclass(frozen=True)
class Schedule:
    """Makes a run's jobs."""

    config: Any
    programs: Programs
    samples_per_row: int
    rows: Dataset
    held_out: Dataset | None
    run_directory: Path

    def stages(self) -> Iterator[Stage]:
        """All that the run does, in its one order."""
        return in_order(self.jobs(), self.config.max_staleness)

    def jobs(self) -> Iterator[Job]:
        """Evaluations stand at the start, at the end and where asked for; the end is saved."""
        number = 0
        for step in range(self.config.num_steps + 1):
            for make in self._due(step):
                yield make(number, step)
                number += 1

    def _due(self, step: int) -> list:
        config = self.config
        is_last = step == config.num_steps
        due = []
        if self.held_out and (step == 0 or is_last or _every(config.eval_every, step)):
            due.append(self._evaluation)
        if is_last or (step and _every(config.save_every, step)):
            due.append(self._checkpoint)
        if not is_last:
            due.append(self._training)
        return due

    def _training(self, number: int, step: int) -> Job:
        config, levels = self.config, self.rows.levels
        rows = epoch_rows(len(self.rows), config.batch_size, step, config.seed, levels)
        number_spare = (self.programs.max_draws - 1) * config.batch_size
        spare = spare_rows(len(self.rows), rows, number_spare, step, config.seed, levels)
        return Job(
            number,
            self.programs.train,
            step,
            samples=samples_of(rows, self.samples_per_row),
            row_lengths={row: self.rows.length(row) for row in (*rows, *spare)},
            group_size=self.samples_per_row,
            spare_rows=spare,
        )

    def _evaluation(self, number: int, step: int) -> Job:
        rows = range(len(self.held_out))
        return Job(
            number,
            self.programs.evaluate,
            step,
            evaluating=True,
            samples=samples_of(rows, 1),
            row_lengths={row: self.held_out.length(row) for row in rows},
        )

    def _checkpoint(self, number: int, step: int) -> Job:
        directory = str(partial_directory(self.run_directory, step))
        return Job(number, self.programs.save, step, directory=directory)


def in_order(jobs: Iterable[Job], max_staleness: int) -> Iterator[Stage]:
    """The jobs one by one, but for what a job does ahead: that comes before the rest of `max_staleness`
    earlier ones, and so sees weights which are as many training steps older.
    """
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


def samples_of(rows: Sequence[int], samples_per_row: int) -> tuple[Sample, ...]:
    """Every sample of a batch; those of one row are neighbours."""
    return tuple(Sample(i, row) for i, row in enumerate(row for row in rows for _ in range(samples_per_row)))


def epoch_rows(
    num_rows: int, batch_size: int, step: int, seed: int, levels: Sequence[float] = ()
) -> list[int]:
    """A step's rows: each epoch is a shuffle of its own, and a batch may reach over its end. With `levels`,
    one a row, an epoch goes from the lowest to the highest.
    """
    first = step * batch_size
    epochs = range(first // num_rows, (first + batch_size - 1) // num_rows + 1)
    stream = [row for epoch in epochs for row in _shuffled(num_rows, epoch, seed, levels)]
    offset = first - epochs[0] * num_rows
    return stream[offset : offset + batch_size]


def spare_rows(
    num_rows: int, rows: Sequence[int], number: int, step: int, seed: int, levels: Sequence[float] = ()
) -> tuple[int, ...]:
    """Up to `number` rows beside a step's own, at random; of their levels, if rows have some."""
    wanted = {levels[row] for row in rows} if levels else ()
    among = [row for row in range(num_rows) if levels[row] in wanted] if levels else range(num_rows)
    generator = random.Random(derive_seed(seed, "spare rows", step))
    drawn = generator.sample(among, min(len(among), number + len(rows)))
    return tuple(row for row in drawn if row not in rows)[:number]


def _shuffled(num_rows: int, epoch: int, seed: int, levels: Sequence[float]) -> list[int]:
    rows = list(range(num_rows))
    random.Random(derive_seed(seed, "rows", epoch)).shuffle(rows)
    return sorted(rows, key=levels.__getitem__) if levels else rows


def _every(period: int, step: int) -> bool:
    return bool(period) and step % period == 0
