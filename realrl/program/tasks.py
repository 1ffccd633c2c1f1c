"""Tasks of the scheduler: instructions of jobs, and their states.

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
    place: int
    """Its place in the run's one order of instructions."""
    waits_for: set[Task] = field(default_factory=set)
    """The tasks that are not done and must end before it may start."""
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
