"""Tasks of the scheduler: nodes of jobs, their states, and which of them must wait for which.

    pending ──────────▶ ready ──────────▶ running ──────────▶ done
       nothing is left     its ranks are     every rank of it
       to wait for         free              has reported
                            │                                 ▲
                            └─────────────────────────────────┘
                              there is nothing to do: weights or samples are in their place already

A job that is withdrawn drops its pending and ready tasks; what is running ends.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum

from realrl.api.messages import Instruction
from realrl.program.events import Job
from realrl.program.instructions import Call, Inputs, Node, Outputs, Resource


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
    """A node of a job, from the stage that brings it to the last report."""

    job: Job
    node: Node
    version: int
    """The version of the node's model when the node runs."""
    waits_for: set[Task]
    place: int
    """Its place in the run's one order of nodes."""
    state: TaskState = TaskState.PENDING
    instruction: Instruction | None = None
    """Set once the task leaves the state `ready`."""
    awaited: set[int] = field(default_factory=set)
    """Ranks that have not reported."""

    @property
    def is_preemptible(self) -> bool:
        """Whether it generates, and other work of its ranks goes first, between two tokens."""
        return isinstance(self.node, Call) and self.node.steps_aside

    @property
    def accepts_new_weights(self) -> bool:
        """Whether it generates, and its model's weights may change between two tokens."""
        return isinstance(self.node, Call) and self.node.interruptible


class Hazards:
    """Which unfinished tasks last wrote each resource, and which have read it since.

    A task waits for the last writer of what it uses, and for the readers of what it overwrites.
    """

    def __init__(self) -> None:
        self._writer: dict[object, Task] = {}
        self._readers: dict[object, list[Task]] = defaultdict(list)

    def of(self, job: Job, node: Node) -> set[Task]:
        """Return the tasks that must end before `node` of `job` may begin."""
        found: set[Task] = set()
        for resource in (*node.reads, *node.writes):
            writer = self._writer.get(_scoped(job, resource))
            if writer is not None:
                found.add(writer)
        for resource in node.writes:
            found.update(self._readers.get(_scoped(job, resource), ()))
        return found

    def add(self, task: Task) -> None:
        """Record what a task reads and writes; later tasks wait for it."""
        for resource in task.node.reads:
            self._readers[_scoped(task.job, resource)].append(task)
        for resource in task.node.writes:
            scoped = _scoped(task.job, resource)
            self._writer[scoped] = task
            # A generation that accepts new weights keeps reading them after they are written.
            readers = self._readers.get(scoped, ())
            self._readers[scoped] = [reader for reader in readers if reader.accepts_new_weights]

    def remove(self, task: Task) -> None:
        """Forget a task that is done: nothing waits for it any more."""
        for resource in task.node.writes:
            scoped = _scoped(task.job, resource)
            if self._writer.get(scoped) is task:
                del self._writer[scoped]
        for resource in task.node.reads:
            scoped = _scoped(task.job, resource)
            readers = self._readers.pop(scoped, ())
            left = [reader for reader in readers if reader is not task]
            if left:
                self._readers[scoped] = left


def _scoped(job: Job, resource: Resource) -> object:
    """Return the key of a resource: inputs and outputs belong to a job, weights and turns to the run."""
    is_of_job = isinstance(resource, Inputs | Outputs)
    return (job.number, resource) if is_of_job else resource
