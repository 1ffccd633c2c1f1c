"""What a run does, in order: training steps, evaluations and checkpoints; or one pass over its data.

before step s:   evaluations ─▶ best ─▶ checkpoint ─▶ recovery point ─▶ training step s
                 each if it is due; the end of a run is as before a step that does not come
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.data import RowSet
from realrl.api.evals import HELD_OUT, OF_HELD_OUT, EvalConfig
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Dataset, Recipe
from realrl.api.traits import evals_of, needed_generation
from realrl.base.seeding import derive_seed
from realrl.program.events import Job, Stage
from realrl.program.jobs import Programs, compile_run, samples_of
from realrl.runtime.history import Past
from realrl.runtime.master.best import best_set_of
from realrl.runtime.master.checkpoints import BEST, CHECKPOINTS, RECOVERIES, noted_step, partial_directory
from realrl.runtime.master.job_report import EVAL
from realrl.runtime.master.mixing import mixed_rows, mixed_spares
from realrl.runtime.run_data import RunData
from realrl.runtime.run_files import RECORDS

MakeJob = Callable[[int, int], Job]
"""`(number of the job, step) -> job`."""


class Schedule(Protocol):
    """A run's jobs, and what is left of them."""

    kind: ClassVar[str]
    """The kind of its steps."""

    @property
    def steps(self) -> range:
        """The steps that the run makes."""

    @property
    def open_ahead(self) -> int:
        """The number of jobs that may be open because of what they do ahead."""

    @property
    def keeps_best(self) -> bool:
        """Whether evaluations decide what is saved."""

    @property
    def keep_recoveries(self) -> int:
        """The number of recovery points that are kept."""

    @property
    def versions(self) -> Mapping[str, int]:
        """The version of each model whose weights differ from its checkpoint."""

    def jobs(self) -> Iterator[Job]:
        """Return all jobs that are not done, in order."""

    @property
    def may_recover_now(self) -> bool:
        """Whether it may have a recovery point out of turn."""

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        """Return a recovery point after `step` training steps, out of turn."""

    def outcome(self) -> dict[str, Any]:
        """Return the paths of what it made."""


@dataclass(frozen=True)
class Training:
    """The jobs of a run that trains."""

    config: TrainingConfig
    programs: Programs
    samples_per_row: int
    rows: Dataset
    held_out: Dataset | None
    run_directory: Path
    steps_done: int = 0
    """The steps of the run that this one resumes."""
    evaluated: frozenset[str] = frozenset()
    """The sets of which the evaluation before the next step is recorded."""
    more_sets: Mapping[str, Dataset] = field(default_factory=dict)
    """Further sets to evaluate on, by name."""
    best_set: str = HELD_OUT
    """The set whose evaluations tell which weights are the best."""
    kind: ClassVar[str] = "train"

    @property
    def steps(self) -> range:
        """The steps that are not done."""
        return range(self.steps_done, self.config.num_steps)

    @property
    def open_ahead(self) -> int:
        """A job for each step that generation may be ahead."""
        return self.config.max_staleness

    @property
    def keeps_best(self) -> bool:
        """Whether there are evaluations, and the best weights are to be kept."""
        best = self.best_set
        return bool(best in self.eval_sets and self._every(best) and self.config.keep_best)

    @property
    def eval_sets(self) -> dict[str, Dataset]:
        """The sets to evaluate on; first the one that tells which weights are the best.

        Its evaluation is what a checkpoint of the best weights waits for.
        """
        found = {HELD_OUT: self.held_out} if self.held_out else {}
        found |= self.more_sets
        return dict(sorted(found.items(), key=lambda item: item[0] != self.best_set))

    def _every(self, name: str) -> int:
        """Return the period of the evaluations on a set."""
        own = self._settings(name).every
        return self.config.eval_every if own is None else own

    def _settings(self, name: str) -> EvalConfig:
        """Return the settings of a set."""
        return evals_of(self.config).get(name, OF_HELD_OUT)

    @property
    def keep_recoveries(self) -> int:
        """The number of recovery points that are kept."""
        return self.config.keep_recoveries

    @property
    def versions(self) -> dict[str, int]:
        """The version of each model whose weights differ from its checkpoint."""
        if not self.steps_done:
            return {}
        return dict.fromkeys(self.programs.changed, self.steps_done)

    def outcome(self) -> dict[str, Any]:
        """Return the path of the last checkpoint."""
        name = _name(self.config.num_steps)
        return {"checkpoint": str(self.run_directory / CHECKPOINTS / name)}

    def jobs(self) -> Iterator[Job]:
        """Return all jobs that are not done.

        Evaluations are at the start, at the end and where asked for; the end is saved, and after all
        evaluations except the first what may be the best. A recovery point comes last before training.
        """
        number = 0
        for step in range(self.steps_done, self.config.num_steps + 1):
            is_resumed = 0 < step == self.steps_done
            for make in self._due(step):
                if is_resumed and self._is_done(make, step):
                    continue
                yield make(number, step)
                number += 1

    def _due(self, step: int) -> list[MakeJob]:
        """Return what makes the jobs that are due after `step` training steps, in order."""
        config = self.config
        is_first = step == 0
        is_last = step == config.num_steps
        saves = is_last or (not is_first and _every(config.save_every, step))
        recovers = is_last or _every(config.recover_every, step)

        names = self._evaluated_at(step)
        due: list[MakeJob] = [self._evaluations[name] for name in names]
        if self.best_set in names and self.keeps_best and not is_first:
            due.append(self._best)
        if saves:
            due.append(self._checkpoint)
        if recovers and config.recover_every and not is_first:
            due.append(self._recovery)
        if not is_last:
            due.append(self._training)
        return due

    def _evaluated_at(self, step: int) -> list[str]:
        """Return the sets to evaluate on after `step` training steps."""
        if step == 0:
            return list(self.eval_sets) if self.config.eval_at_start else []
        if step == self.config.num_steps:
            return list(self.eval_sets)
        return [name for name in self.eval_sets if _every(self._every(name), step)]

    @cached_property
    def _evaluations(self) -> dict[str, MakeJob]:
        """What makes the evaluations, by set."""
        return {name: partial(self._evaluation, name) for name in self.eval_sets}

    @property
    def may_recover_now(self) -> bool:
        """Whether it may have a recovery point out of turn.

        A run that repeats to the bit may not if it generates ahead: resumed there, it would generate ahead
        anew, and with other weights.
        """
        config = self.config
        repeats = config.max_staleness and not needed_generation(config).interruptible
        return bool(config.recover_every) and not repeats

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        """Return the two stages of a recovery point after `step` training steps."""
        job = self._recovery(number, step)
        yield Stage(job, job.program.ahead, is_last=False)
        yield Stage(job, job.program.rest, is_last=True)

    def _is_done(self, make: MakeJob, step: int) -> bool:
        """Whether the run that this one resumes has made a job of the step where it resumes.

        It may have been stopped between two of them.
        """
        checkpoints = self.run_directory / CHECKPOINTS
        if make == self._checkpoint:
            return (checkpoints / _name(step)).is_dir()
        if make == self._best:
            return self.best_set in self.evaluated and noted_step(checkpoints / BEST) == step
        for name in self.evaluated:
            if make is self._evaluations.get(name):
                return True
        return make == self._recovery

    def _training(self, number: int, step: int) -> Job:
        config = self.config
        num_rows = len(self.rows)
        levels = self.rows.levels
        sets = self.rows.sets
        rows = epoch_rows(num_rows, config.batch_size, step, config.seed, levels, sets)
        num_spare = (self.programs.max_draws - 1) * config.batch_size
        spare = spare_rows(num_rows, rows, num_spare, step, config.seed, levels, sets)
        return Job(
            number,
            self.programs.step,
            step,
            samples=samples_of(rows, self.samples_per_row),
            row_lengths={row: self.rows.length(row) for row in (*rows, *spare)},
            group_size=self.samples_per_row,
            spare_rows=spare,
        )

    def _evaluation(self, name: str, number: int, step: int) -> Job:
        dataset = self.eval_sets[name]
        rows = range(len(dataset))
        num_answers = self._settings(name).n
        return Job(
            number,
            self.programs.evaluate,
            step,
            eval_set=name,
            samples=samples_of(rows, num_answers),
            row_lengths={row: dataset.length(row) for row in rows},
            group_size=num_answers,
        )

    def _checkpoint(self, number: int, step: int) -> Job:
        return Job(number, self.programs.save, step, directory=self._partial(CHECKPOINTS, _name(step)))

    def _best(self, number: int, step: int) -> Job:
        directory = self._partial(CHECKPOINTS, BEST)
        return Job(number, self.programs.save, step, directory=directory, only_if_best=True)

    def _recovery(self, number: int, step: int) -> Job:
        directory = self._partial(RECOVERIES, _name(step))
        return Job(number, self.programs.recovery, step, directory=directory, recovers=True)

    def _partial(self, kind: str, name: str) -> str:
        return str(partial_directory(self.run_directory / kind, name))


@dataclass(frozen=True)
class Pass:
    """The jobs of a run that trains nothing: each row once, in order, except those that are done."""

    config: RunConfig
    programs: Programs
    samples_per_row: int
    rows: Dataset
    run_directory: Path
    steps_done: int
    rows_done: int
    kind: ClassVar[str] = "pass"
    open_ahead: ClassVar[int] = 0
    keeps_best: ClassVar[bool] = False
    keep_recoveries: ClassVar[int] = 0
    versions: ClassVar[Mapping[str, int]] = {}
    may_recover_now: ClassVar[bool] = False

    @property
    def steps(self) -> range:
        """The batches that are left, after those that an earlier run made, whatever their size."""
        num_left = len(self.rows) - self.rows_done
        num_batches = -(-num_left // self.config.batch_size)
        return range(self.steps_done, self.steps_done + num_batches)

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        """Return nothing: a pass resumes from its records."""
        return iter(())

    def jobs(self) -> Iterator[Job]:
        """Return a job for each batch that is left."""
        for number, step in enumerate(self.steps):
            first = self.rows_done + number * self.config.batch_size
            stop = min(first + self.config.batch_size, len(self.rows))
            rows = range(first, stop)
            yield Job(
                number,
                self.programs.step,
                step,
                samples=samples_of(rows, self.samples_per_row, first_id=first * self.samples_per_row),
                row_lengths={row: self.rows.length(row) for row in rows},
                group_size=self.samples_per_row,
            )

    def outcome(self) -> dict[str, Any]:
        """Return the path of the records, and the number of rows."""
        records = self.run_directory / RECORDS[self.kind]
        return {"generations": str(records), "num_rows": len(self.rows)}


def make_schedule(
    recipe: Recipe, config: RunConfig, plan: ExecutionPlan, data: RunData, run_directory: Path, past: Past
) -> Schedule:
    """Return what a run of a recipe does, except what is done: it trains, or passes over its rows."""
    programs = compile_run(recipe, config, plan)
    samples_per_row = recipe.samples_per_row(config)
    if not isinstance(config, TrainingConfig):
        return Pass(config, programs, samples_per_row, data.rows, run_directory, past.steps, past.rows)
    return Training(
        config,
        programs,
        samples_per_row,
        data.rows,
        data.held_out,
        run_directory,
        steps_done=past.steps,
        evaluated=_evaluated(past),
        more_sets=data.more_sets,
        best_set=best_set_of(config),
    )


def _evaluated(past: Past) -> frozenset[str]:
    """Return the sets of which the evaluation before the next step is recorded."""
    names = set()
    for line in past.metrics:
        if line["kind"] == EVAL and line["step"] == past.steps:
            names.add(line.get("set", HELD_OUT))
    return frozenset(names)


def epoch_rows(
    num_rows: int,
    batch_size: int,
    step: int,
    seed: int,
    levels: Sequence[float] = (),
    sets: Sequence[RowSet] = (),
) -> list[int]:
    """Return the rows of a training step: each epoch is shuffled anew, and a batch may reach into the next.

    With `levels`, one per row, an epoch goes from the lowest to the highest. With `sets`, a batch has rows of
    each, and each has epochs of its own.
    """
    if sets:
        return mixed_rows(sets, batch_size, step, seed, levels)
    first = step * batch_size
    last = first + batch_size - 1
    first_epoch = first // num_rows
    last_epoch = last // num_rows
    stream: list[int] = []
    for epoch in range(first_epoch, last_epoch + 1):
        stream += _shuffled(num_rows, epoch, seed, levels)
    offset = first - first_epoch * num_rows
    return stream[offset : offset + batch_size]


def spare_rows(
    num_rows: int,
    rows: Sequence[int],
    number: int,
    step: int,
    seed: int,
    levels: Sequence[float] = (),
    sets: Sequence[RowSet] = (),
) -> tuple[int, ...]:
    """Return up to `number` random rows that are not a step's own; of the same levels, if rows have some.

    With `sets`, they are of the sets of the step's rows, in the same order.
    """
    if sets:
        return mixed_spares(sets, rows, number, step, seed, levels)
    among: Sequence[int] = range(num_rows)
    if levels:
        wanted = {levels[row] for row in rows}
        among = [row for row in among if levels[row] in wanted]

    generator = random.Random(derive_seed(seed, "spare rows", step))
    # Some of those that are drawn may be the step's own.
    num_drawn = min(len(among), number + len(rows))
    drawn = generator.sample(among, num_drawn)
    others = [row for row in drawn if row not in rows]
    spare = others[:number]
    return tuple(spare)


def _shuffled(num_rows: int, epoch: int, seed: int, levels: Sequence[float]) -> list[int]:
    """Return all rows in the order of an epoch."""
    rows = list(range(num_rows))
    generator = random.Random(derive_seed(seed, "rows", epoch))
    generator.shuffle(rows)
    return sorted(rows, key=levels.__getitem__) if levels else rows


def _name(step: int) -> str:
    """Return the name of a step's checkpoint."""
    return f"step-{step}"


def _every(period: int, step: int) -> bool:
    return bool(period) and step % period == 0
