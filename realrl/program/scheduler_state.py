"""Everything that a scheduler knows, as data: what an event log begins with.

Scheduler ──state()──▶ SchedulerState ──msgspec──▶ bytes
bytes ──msgspec──▶ SchedulerState ──Scheduler.resumed()──▶ Scheduler
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from realrl.program.events import Job
from realrl.program.instructions import AnyInstruction
from realrl.program.ledger import LedgerState
from realrl.program.program import Program
from realrl.program.resources import Weights
from realrl.program.tasks import Task, TaskState


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is not done; tasks are named by their places."""

    job: int
    instruction: AnyInstruction
    version: int
    waits_for: list[int]
    place: int
    state: TaskState
    sent: AnyInstruction | None
    awaited: list[int]


class SchedulerState(msgspec.Struct, frozen=True, kw_only=True):
    """What a scheduler knows; see there."""

    versions: dict[str, int] = {}
    replicas: list[tuple[Weights, int]] = []
    planned: list[tuple[Weights, int]] = []
    next_seq: int = 0
    next_place: int = 0
    jobs: list[Job] = []
    """Jobs that have tasks left."""
    ledgers: dict[int, LedgerState] = {}
    waiting: list[TaskRecord] = []
    running: list[TaskRecord] = []
    complete: list[int] = []
    changing: list[int] = []
    num_left: dict[int, int] = {}
    generating: list[int] = []
    watched: list[int] = []


def without_program(job: Job) -> Job:
    """Return a job as the scheduler sees it: its instructions come by stages."""
    return replace(job, program=Program(()))


def records_of(tasks: Iterable[Task]) -> list[TaskRecord]:
    """Return tasks as data."""
    records = []
    for task in tasks:
        places = sorted(other.place for other in task.waits_for)
        records.append(
            TaskRecord(
                job=task.job.number,
                instruction=task.instruction,
                version=task.version,
                waits_for=places,
                place=task.place,
                state=task.state,
                sent=task.sent,
                awaited=sorted(task.awaited),
            )
        )
    return records


def tasks_of(records: Iterable[TaskRecord], jobs: Mapping[int, Job]) -> dict[int, Task]:
    """Return the tasks of records, by place."""
    records = list(records)
    tasks: dict[int, Task] = {}
    for record in records:
        tasks[record.place] = Task(
            jobs[record.job],
            record.instruction,
            record.version,
            record.place,
            state=record.state,
            sent=record.sent,
            awaited=set(record.awaited),
        )
    for record in records:
        tasks[record.place].waits_for.update(tasks[place] for place in record.waits_for)
    return tasks
