"""What the scheduler is told: jobs, the stages in which they begin, and the reports of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from realrl.api.batch import Sample
from realrl.api.messages import Done
from realrl.program.instructions import AnyInstruction
from realrl.program.program import Program


@dataclass(frozen=True)
class Job:
    """One pass over a program: a training step, an evaluation or a checkpoint."""

    number: int
    """Its place among the run's jobs."""
    program: Program
    step: int
    """Training steps done before it."""
    eval_set: str = ""
    """The set that an evaluation is on; empty for a step."""
    samples: tuple[Sample, ...] = ()
    row_lengths: Mapping[int, int] = field(default_factory=dict)
    """Tokens of each dataset row."""
    group_size: int = 1
    """Samples of one row, which are neighbours."""
    spare_rows: tuple[int, ...] = ()
    """Rows that replace those that a call rejects."""
    directory: str = ""
    """Where a checkpoint is written."""
    recovers: bool = False
    """Whether the checkpoint is a recovery point: everything that the run needs to resume."""
    only_if_best: bool = False
    """Whether the checkpoint is skipped unless the evaluation before it is the best so far."""

    @property
    def evaluating(self) -> bool:
        """Whether it is an evaluation."""
        return bool(self.eval_set)


@dataclass(frozen=True)
class Stage:
    """Instructions of a job that enter the run's one order together."""

    job: Job
    instructions: tuple[AnyInstruction, ...]
    is_last: bool
    """Whether the job has no further stage."""


@dataclass(frozen=True)
class Reported:
    """A rank has done its part of an instruction."""

    rank: int
    done: Done


@dataclass(frozen=True)
class Withdrawn:
    """Jobs that have changed no weights are given up: what runs of them ends, the rest is dropped."""

    jobs: tuple[int, ...]
    """By number."""


@dataclass(frozen=True)
class Closed:
    """A job has ended, and nothing more will be asked of its samples."""

    job: int
    """By number."""


Event = Stage | Reported | Withdrawn | Closed
