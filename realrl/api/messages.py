"""What master and workers say to each other, except instructions: typed, schema-checked, and small.

Instructions (`realrl.program.instructions`) go to workers, reports come back. Tensors never pass here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from realrl.api.mesh import ExecutionPlan, Placement


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Anything on the control channel; its class is its tag."""


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """All that a run was after `step` training steps, in files."""

    step: int
    directory: str


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """What the master reads, which every rank must read too."""

    rows: str
    """Of the training rows: their number and digest, in words."""
    held_out: str
    models: dict[str, str]
    """A sample of each model's files."""
    more_sets: dict[str, str] = {}
    """Of further sets that the run is evaluated on, by name."""


class Setup(Message, frozen=True, kw_only=True):
    """What a worker needs to build its part of the run."""

    recipe: str
    config: bytes
    """The resolved config as JSON."""
    placements: dict[str, Placement]
    """The execution plan, by call."""
    store: str
    """Where the data plane's workers find each other."""
    hosts: tuple[str, ...]
    """Addresses that they connect from."""
    digests: Digests
    recovery: Recovery | None = None
    """What the run resumes from; None for its beginning."""

    @property
    def plan(self) -> ExecutionPlan:
        return ExecutionPlan(self.placements)


class Stop(Message, frozen=True, kw_only=True):
    """End in good order."""


class KeyMove(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of the samples that a move brings to ranks that lack them."""

    dtypes: dict[str, str]
    """By key."""
    lengths: dict[int, int]
    """Elements by sample."""
    source: dict[int, tuple[int, ...]]
    """Samples that each rank holds."""
    target: dict[int, tuple[int, ...]]
    """Samples that each rank lacks."""


class Preempt(Message, frozen=True, kw_only=True):
    """Ranks that generate are to carry out what was sent before this, and then continue."""

    seq: int
    """Of the call that generates; one that has ended needs nothing."""
    ranks: tuple[int, ...]


class Hello(Message, frozen=True):
    """A worker has dialled in."""

    addresses: tuple[str, ...] = ()
    """Of the interfaces that its share of the data plane takes."""


class Ready(Message, frozen=True, kw_only=True):
    """A worker has carried out its `Setup`."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """What a file must be for it to be whole."""

    path: str
    """Below the directory that all such files of a job lie in."""
    num_bytes: int
    checksum: str


class Done(Message, frozen=True, kw_only=True):
    """An instruction is carried out on the reporting rank."""

    seq: int
    started_s: float
    ended_s: float
    """Seconds since the epoch."""
    metrics: dict[str, tuple[float, float]] = {}
    """(total, weight) by name, of means."""
    peaks: dict[str, float] = {}
    """Metrics of which the largest counts."""
    records: list[dict[str, Any]] = []
    samples: tuple[int, ...] = ()
    """The samples whose outputs this rank now holds."""
    lengths: dict[str, tuple[int, ...]] = {}
    """Elements of each of `samples`, by output key."""
    dtypes: dict[str, str] = {}
    rejected: tuple[int, ...] = ()
    """Samples whose rows are to be replaced by others."""
    files: tuple[File, ...] = ()
    """Written on this rank."""


class Underway(Message, frozen=True, kw_only=True):
    """How far the reporting rank is with an instruction that takes its time."""

    seq: int
    done: int
    total: int
    """Of the rank's own samples."""
    steps: int = 0
    """Tokens, micro-batches or answers so far. What is late is told by these, as a sample may take hours."""


class Failed(Message, frozen=True, kw_only=True):
    """An instruction (None: the set-up) raised on the reporting rank."""

    seq: int | None
    error: str
    """One line."""
    traceback: str
    refused: bool = False
    """A restart would fail in the same way: a person has to repair something."""


ToMaster = Hello | Ready | Underway | Done | Failed
