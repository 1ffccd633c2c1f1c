"""Tasks of the scheduler: instructions of jobs, their states, and which of them must wait for which.

    pending ──────────▶ ready ──────────▶ running ──────────▶ done
       nothing is left     its ranks are     every rank of it
       to wait for         free              has reported
                            │                                 ▲
                            └─────────────────────────────────┘
                              there is nothing to do: weights or samples are in their place already

A job that is withdrawn drops its pending and ready tasks; what is running ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from realrl.program.events import Job
from realrl.program.instructions import AnyInstruction, RunCall
from realrl.program.resources import Inputs, Memory, Outputs, Resource


class TaskState(Enum):
    """How far a task is; the picture above shows how it moves from one state to the next."""

    PENDING = "pending"
    """It waits for other tasks."""
    READY = "ready"
    """It waits for no task, and perhaps for ranks that are busy."""
    RUNNING = "running"
    """Its instruction was emitted, and some of its ranks have not reported."""
    DONE = "done"
    """Every rank has reported, or nothing had to be done."""


@dataclass(eq=False)
class Task:
    """An instruction of a job, from the stage that brings it to the last report."""

    job: Job
    instruction: AnyInstruction
    """As the program has it."""
    version: int
    """The version of the instruction's model when it runs."""
    waits_for: set[Task]
    place: int
    """Its place in the run's one order of instructions."""
    state: TaskState = TaskState.PENDING
    sent: AnyInstruction | None = None
    """The instruction as it was sent; set once the task leaves the state `ready`."""
    awaited: set[int] = field(default_factory=set)
    """Ranks that have not reported."""

    @property
    def is_preemptible(self) -> bool:
        """Whether it generates, and other work of its ranks goes first, between two tokens."""
        return isinstance(self.instruction, RunCall) and self.instruction.preemptible

    @property
    def accepts_new_weights(self) -> bool:
        """Whether it generates, and its model's weights may change between two tokens."""
        return isinstance(self.instruction, RunCall) and self.instruction.interruptible


class Hazards:
    """Which unfinished tasks last wrote each resource, and which have read it since.

    A task waits for the last writer of what it uses, and for the readers of what it overwrites.
    """

    def __init__(self) -> None:
        self._writer: dict[object, Task] = {}
        self._readers: dict[object, list[Task]] = {}

    def of(self, job: Job, instruction: AnyInstruction) -> set[Task]:
        """Return the tasks that must end before `instruction` of `job` may begin."""
        found: set[Task] = set()
        written = _written(job, instruction)
        for key in (*_read(job, instruction), *written):
            writer = self._writer.get(key)
            if writer is not None:
                found.add(writer)
        for key in written:
            found.update(self._readers.get(key, ()))
        return found

    def add(self, task: Task) -> None:
        """Record what a task reads and writes; later tasks wait for it."""
        for key in _read(task.job, task.instruction):
            self._readers.setdefault(key, []).append(task)
        for key in _written(task.job, task.instruction):
            self._writer[key] = task
            # A generation that accepts new weights keeps reading them after they are written.
            readers = self._readers.get(key, ())
            self._set_readers(key, [reader for reader in readers if reader.accepts_new_weights])

    def remove(self, task: Task) -> None:
        """Forget a task that is done: nothing waits for it any more."""
        for key in _written(task.job, task.instruction):
            if self._writer.get(key) is task:
                del self._writer[key]
        for key in _read(task.job, task.instruction):
            readers = self._readers.get(key, ())
            self._set_readers(key, [reader for reader in readers if reader is not task])

    def _set_readers(self, key: object, readers: list[Task]) -> None:
        if readers:
            self._readers[key] = readers
        else:
            self._readers.pop(key, None)


def _read(job: Job, instruction: AnyInstruction) -> list[object]:
    """Return the keys of what the instruction reads."""
    return [_key(job, resource, step=job.step) for resource in instruction.reads]


def _written(job: Job, instruction: AnyInstruction) -> list[object]:
    """Return the keys of what the instruction writes; memory is written for the next step."""
    return [_key(job, resource, step=job.step + 1) for resource in instruction.writes]


def _key(job: Job, resource: Resource, *, step: int) -> object:
    """Return a resource's key: inputs and outputs belong to a job, memory to a step, the rest to the run."""
    if isinstance(resource, Inputs | Outputs):
        return job.number, resource
    if isinstance(resource, Memory):
        return step, resource
    return resource
