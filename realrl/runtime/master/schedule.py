"""What a run does, in order: training steps, evaluations and checkpoints; or one pass over its data."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from realrl.api.config import RunConfig, TrainingConfig
from realrl.api.mesh import ExecutionPlan
from realrl.api.recipe import Dataset, Recipe
from realrl.api.traits import needed_generation
from realrl.base.seeding import derive_seed
from realrl.program.events import Job, Stage
from realrl.program.jobs import Programs, compile_run, in_order, samples_of
from realrl.runtime.history import Past
from realrl.runtime.master.checkpoints import BEST, CHECKPOINTS, RECOVERIES, noted_step, partial_directory
from realrl.runtime.run_data import RunData
from realrl.runtime.run_files import RECORDS


class Schedule(Protocol):
    """A run's jobs, and what is left of them."""

    kind: ClassVar[str]
    """Of its steps."""

    @property
    def steps(self) -> range:
        """Those that the run makes."""

    @property
    def open_ahead(self) -> int:
        """How many more jobs may be open for what they do ahead."""

    @property
    def keeps_best(self) -> bool:
        """Whether evaluations decide what is saved."""

    @property
    def keep_recoveries(self) -> int:
        """How many of what it could be gone on with from are kept."""

    @property
    def versions(self) -> Mapping[str, int]:
        """Of models that have other weights than they once began with."""

    def stages(self) -> Iterator[Stage]:
        """All that the run does, in its one order."""

    @property
    def may_recover_now(self) -> bool:
        """Whether it may have a recovery point out of turn."""

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        """A recovery point after `step` training steps, out of turn."""

    def outcome(self) -> dict[str, Any]:
        """Where what it made lies."""


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
    """By the run that this one resumes."""
    is_evaluated: bool = False
    """Whether the evaluation before the next step is recorded."""
    kind: ClassVar[str] = "train"

    @property
    def steps(self) -> range:
        return range(self.steps_done, self.config.num_steps)

    @property
    def open_ahead(self) -> int:
        return self.config.max_staleness

    @property
    def keeps_best(self) -> bool:
        return bool(self.held_out and self.config.eval_every and self.config.keep_best)

    @property
    def keep_recoveries(self) -> int:
        return self.config.keep_recoveries

    @property
    def versions(self) -> dict[str, int]:
        if not self.steps_done:
            return {}
        return dict.fromkeys(self.programs.changed, self.steps_done)

    def stages(self) -> Iterator[Stage]:
        return in_order(self.jobs(), self.config.max_staleness)

    def outcome(self) -> dict[str, Any]:
        name = _name(self.config.num_steps)
        return {"checkpoint": str(self.run_directory / CHECKPOINTS / name)}

    def jobs(self) -> Iterator[Job]:
        """Evaluations are at the start, at the end and where asked for; the end is saved, and after all
        evaluations but the first what may be the best. A recovery point comes last before training.
        """
        number = 0
        for step in range(self.steps_done, self.config.num_steps + 1):
            for make in self._due(step):
                if 0 < step == self.steps_done and self._is_done(make, step):
                    continue
                yield make(number, step)
                number += 1

    @property
    def may_recover_now(self) -> bool:
        """Not where generation is ahead in a run that repeats to the bit: there it would start ahead anew."""
        config = self.config
        repeats = config.max_staleness and not needed_generation(config).interruptible
        return bool(config.recover_every) and not repeats

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        job = self._recovery(number, step)
        yield Stage(job, job.program.ahead, is_last=False)
        yield Stage(job, job.program.rest, is_last=True)

    def _is_done(self, make: Callable[[int, int], Job], step: int) -> bool:
        """Whether the run that this one resumes has done this before training; all of it, if it was not
        stopped in between.
        """
        if make == self._checkpoint:
            return (self.run_directory / CHECKPOINTS / _name(step)).is_dir()
        if make == self._best:
            return self.is_evaluated and noted_step(self.run_directory / CHECKPOINTS / BEST) == step
        return make == self._recovery or (make == self._evaluation and self.is_evaluated)

    def _due(self, step: int) -> list:
        config = self.config
        is_last = step == config.num_steps
        due = []
        if self.held_out and (step == 0 or is_last or _every(config.eval_every, step)):
            due.append(self._evaluation)
            if self.keeps_best and step:
                due.append(self._best)
        if is_last or (step and _every(config.save_every, step)):
            due.append(self._checkpoint)
        if step and config.recover_every and (is_last or _every(config.recover_every, step)):
            due.append(self._recovery)
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
            self.programs.step,
            step,
            samples=samples_of(rows, self.samples_per_row),
            row_lengths={row: self.rows.length(row) for row in (*rows, *spare)},
            group_size=self.samples_per_row,
            spare_rows=spare,
        )

    def _evaluation(self, number: int, step: int) -> Job:
        held_out = self.held_out
        assert held_out is not None, "an evaluation is due, but there are no held-out rows"
        rows = range(len(held_out))
        return Job(
            number,
            self.programs.evaluate,
            step,
            evaluating=True,
            samples=samples_of(rows, 1),
            row_lengths={row: held_out.length(row) for row in rows},
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
    """The jobs of a run that trains nothing: each row once, in order, but those that are done."""

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
        """The batches; those that an earlier run made count, whatever their size."""
        num_batches = -(-(len(self.rows) - self.rows_done) // self.config.batch_size)
        return range(self.steps_done, self.steps_done + num_batches)

    def stages(self) -> Iterator[Stage]:
        return in_order(self.jobs(), max_staleness=0)

    def recovery_now(self, number: int, step: int) -> Iterator[Stage]:
        return iter(())

    def jobs(self) -> Iterator[Job]:
        for number, step in enumerate(self.steps):
            first = self.rows_done + number * self.config.batch_size
            rows = range(first, min(first + self.config.batch_size, len(self.rows)))
            yield Job(
                number,
                self.programs.step,
                step,
                samples=samples_of(rows, self.samples_per_row, first_id=first * self.samples_per_row),
                row_lengths={row: self.rows.length(row) for row in rows},
                group_size=self.samples_per_row,
            )

    def outcome(self) -> dict[str, Any]:
        return {"generations": str(self.run_directory / RECORDS[self.kind]), "num_rows": len(self.rows)}


def make_schedule(
    recipe: Recipe, config: RunConfig, plan: ExecutionPlan, data: RunData, run_directory: Path, past: Past
) -> Schedule:
    """What a recipe's run does: it trains, or passes over its rows, but for what is done."""
    programs, samples = compile_run(recipe, config, plan), recipe.samples_per_row(config)
    if isinstance(config, TrainingConfig):
        evaluated = any(line["kind"] == "eval" and line["step"] == past.steps for line in past.metrics)
        rows = data.rows, data.held_out
        return Training(config, programs, samples, *rows, run_directory, past.steps, evaluated)
    return Pass(config, programs, samples, data.rows, run_directory, past.steps, past.rows)


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


def _name(step: int) -> str:
    """Of a step's checkpoint."""
    return f"step-{step}"


def _every(period: int, step: int) -> bool:
    return bool(period) and step % period == 0
