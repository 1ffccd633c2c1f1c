"""What master and workers say to each other: typed, schema-checked, and small.

Instructions go to workers, reports come back. Tensors never pass here.
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


class Instruction(Message, frozen=True, kw_only=True):
    """A piece of work that `ranks` carry out together."""

    seq: int
    """Its place in the one order that every worker keeps."""
    ranks: tuple[int, ...]
    job: int
    """The pass over a program that it belongs to."""
    step: int
    evaluating: bool = False
    call: str = ""
    """The call that it is or serves."""

    def __str__(self) -> str:
        what = f"{'call' if isinstance(self, RunCall) else type(self).__name__.lower()} {self.call}".rstrip()
        return f"{what} of {'the evaluation at ' if self.evaluating else ''}step {self.step}"


class RunCall(Instruction, frozen=True, kw_only=True):
    """Run a call's body on each data-parallel rank's share."""

    shares: tuple[tuple[tuple[int, int], ...], ...]
    """(sample id, dataset row) pairs by dp_rank."""
    version: int
    """The policy version that the call's model must have."""
    steps_aside: bool
    """Whether what else its ranks are to do comes first, between two tokens."""
    dtypes: dict[str, str]
    """Types of the inputs that other calls made; a rank without samples needs them too."""


class Reallocate(Instruction, frozen=True, kw_only=True):
    """Copy a model's weights from one placement to another, or blend them into another model's."""

    model: str
    source: Placement
    target: Placement
    into: str
    eta: float
    engine: str
    """Of the target."""
    version: int


class OfModel(Instruction, frozen=True, kw_only=True):
    """About a model's weights at a placement."""

    model: str
    placement: Placement


class Release(OfModel, frozen=True, kw_only=True):
    """Give a reallocated replica's memory back."""

    engine: str


class Offload(OfModel, frozen=True, kw_only=True):
    """Keep a model's weights in host memory, or bring them `back` to the device."""

    back: bool


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


class Move(Instruction, frozen=True, kw_only=True):
    """Bring a call's inputs from where they were made to where it runs."""

    keys: tuple[KeyMove, ...]


class Save(OfModel, frozen=True, kw_only=True):
    """Write a model's Hugging Face checkpoint."""

    directory: str


class Snapshot(OfModel, frozen=True, kw_only=True):
    """Copy all that a model needs to be gone on with, and begin to write it."""

    directory: str


class Flush(OfModel, frozen=True, kw_only=True):
    """Wait until a model's snapshot of the same job is written."""


class Forget(Instruction, frozen=True, kw_only=True):
    """Drop the samples of a job."""


class StepAside(Message, frozen=True, kw_only=True):
    """Ranks that generate are to carry out what was sent before this, then go on."""

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
    """Samples whose rows are to give way to others."""
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


ToWorker = (
    Setup
    | Stop
    | RunCall
    | Reallocate
    | Release
    | Offload
    | Move
    | Save
    | Snapshot
    | Flush
    | Forget
    | StepAside
)
ToMaster = Hello | Ready | Underway | Done | Failed
