"""Instructions: what a program is made of, what the scheduler sends, and what workers carry out.

    a program's instruction ──▶ the one that is sent: it has its place in the order,
                                and what begin() returns, which is known only now

An instruction is defined once, here: its fields, what it reads and writes, and what begins with it. Workers
find its handler by its class (`realrl.runtime.worker.worker`).

An instruction waits for the last writer of what it reads, and for the readers of what it overwrites. That one
rule orders the instructions of a pass by its keys, and passes among each other by the weights of the models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from realrl.api.evals import HELD_OUT
from realrl.api.graph import OWN_ENGINE, CallKind, ModelFunctionCall
from realrl.api.mesh import Placement
from realrl.api.messages import KeyMove, Message
from realrl.program.resources import Inputs, Memory, Outputs, Resource, Turn, Weights

if TYPE_CHECKING:  # the wire and simulated workers load this module, and have no need of torch
    from realrl.program.ledger import Ledger, Shares

NOT_STARTED = -1
"""The place in the order of an instruction that has not started."""


Replicas = dict[Weights, int]
"""The version that each replica away from its model's home holds."""


class Start(NamedTuple):
    """What the scheduler knows when an instruction starts."""

    directory: str
    """Where the job's checkpoint is written."""
    version: int
    """The version of the instruction's model at its place in the run's order."""
    ledger: Ledger
    """The job's samples."""
    replicas: Replicas


class Instruction(Message, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of work that `ranks` carry out together. The first four fields are set when it starts."""

    seq: int = NOT_STARTED
    """Its place in the one order that every worker keeps."""
    job: int = NOT_STARTED
    """The pass over a program that it belongs to."""
    step: int = 0
    """Training steps done before the job."""
    eval_set: str = ""
    """The set that an evaluation is on; empty for a step."""

    @property
    def evaluating(self) -> bool:
        """Whether it is of an evaluation."""
        return bool(self.eval_set)

    @property
    def call(self) -> str:
        """The call that it is or serves; empty where it is about a model alone."""
        return ""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that carry it out, in ascending order; of a move, known once it has started."""
        raise NotImplementedError

    @property
    def possible_ranks(self) -> tuple[int, ...]:
        """The ranks that it may need."""
        return self.ranks

    @property
    def reads(self) -> tuple[Resource, ...]:
        """What it uses and leaves as it is."""
        return ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        """What it changes."""
        return ()

    @property
    def changed_model(self) -> str | None:
        """The model that has other weights afterwards, if there is one."""
        return None

    @property
    def read_model(self) -> str | None:
        """The model whose version must be right when it starts, if there is one."""
        return None

    def ranks_now(self, ledger: Ledger) -> set[int]:
        """Return the ranks that would take part if it started now."""
        return set(self.ranks)

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Return its fields that are known only now; None where nothing is to be done.

        What it brings is noted in `start`: it counts from now on, since workers keep the one order.
        """
        return {}

    def __str__(self) -> str:
        kind = "call" if isinstance(self, RunCall) else type(self).__name__.lower()
        what = f"{kind} {self.call}".rstrip()
        if not self.evaluating:
            return f"{what} of step {self.step}"
        on_set = "" if self.eval_set == HELD_OUT else f" on {self.eval_set}"
        return f"{what} of the evaluation{on_set} at step {self.step}"


class Reallocate(Instruction, frozen=True, kw_only=True):
    """Bring `model` from its home to where `call` runs; or blend it into another model by the share `eta`."""

    call: str = ""
    model: str
    source: Placement
    target: Placement
    into: str
    """The model whose weights are written: `model` itself, except for a blend."""
    eta: float = 1.0
    engine: str = OWN_ENGINE
    """The engine that gets the weights."""
    version: int = NOT_STARTED
    """The version of the weights that are brought; set when it starts."""

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of both placements."""
        return union(self.source, self.target)

    @property
    def replica(self) -> Weights:
        """The weights that are written."""
        return Weights(self.into, self.target, self.engine)

    @property
    def is_blend(self) -> bool:
        """Whether another model's weights are written."""
        return self.into != self.model

    @property
    def reads(self) -> tuple[Resource, ...]:
        """The model's weights at home."""
        return (Weights(self.model, self.source),)

    @property
    def writes(self) -> tuple[Resource, ...]:
        """The weights at the target."""
        return (self.replica,)

    @property
    def changed_model(self) -> str | None:
        """The model that is blended into, if it is another."""
        return self.into if self.is_blend else None

    @property
    def read_model(self) -> str | None:
        """The model whose weights are brought."""
        return self.model

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Note the version that the replica gets; None where it has that version already."""
        if not self.is_blend:
            if start.replicas.get(self.replica) == start.version:
                return None
            start.replicas[self.replica] = start.version
        return {"version": start.version}


class AtPlacement(Instruction, frozen=True, kw_only=True):
    """An instruction about a model's weights at a placement."""

    model: str
    placement: Placement

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the placement."""
        return self.placement.ranks

    @property
    def read_model(self) -> str | None:
        """The model that it is about."""
        return self.model

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The weights that it is about; none where it is about no model."""
        return (Weights(self.model, self.placement),) if self.model else ()


class Release(AtPlacement, frozen=True, kw_only=True):
    """Drop the replica of `model` that `call` was the last to use."""

    call: str
    engine: str = OWN_ENGINE

    @property
    def replica(self) -> Weights:
        """The weights that are dropped."""
        return Weights(self.model, self.placement, self.engine)

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The replica that is dropped."""
        return (self.replica,)

    @property
    def writes(self) -> tuple[Resource, ...]:
        """The replica that is dropped."""
        return (self.replica,)

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Note that the replica is gone."""
        start.replicas.pop(self.replica, None)
        return {}


class Offload(AtPlacement, frozen=True, kw_only=True):
    """Keep the weights of `model` in host memory from now on, or bring them `back` to the device."""

    back: bool

    @property
    def writes(self) -> tuple[Resource, ...]:
        """The weights that change their place."""
        return self.weights


class Move(Instruction, frozen=True, kw_only=True):
    """Bring to `function` the keys that other calls made."""

    function: ModelFunctionCall
    placement: Placement
    """Where the call runs."""
    keys: tuple[str, ...]
    producers: tuple[str, ...]
    """The calls that made the keys."""
    moves: tuple[KeyMove, ...] = ()
    """What each rank sends and receives; set when it starts."""

    @property
    def call(self) -> str:
        """The call that it serves."""
        return self.function.name

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that send or receive; none before it starts."""
        return tuple(sorted(_ranks_of(self.moves)))

    @property
    def possible_ranks(self) -> tuple[int, ...]:
        """The ranks of the call that it serves."""
        return self.placement.ranks

    @property
    def reads(self) -> tuple[Resource, ...]:
        """What the calls before it made."""
        return tuple(Outputs(producer) for producer in self.producers)

    @property
    def writes(self) -> tuple[Resource, ...]:
        """The inputs of the call that it serves."""
        return (Inputs(self.call),)

    def ranks_now(self, ledger: Ledger) -> set[int]:
        """Return the ranks that would send or receive."""
        return _ranks_of(ledger.lacking(self.function, self.keys, self.placement))

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Note who holds what once it is done; None where every rank has what it needs."""
        moves = start.ledger.lacking(self.function, self.keys, self.placement)
        start.ledger.record_move(moves)
        return {"moves": moves} if moves else None


class RunCall(Instruction, frozen=True, kw_only=True):
    """Run the body of `function` on each data-parallel rank's share of the samples."""

    function: ModelFunctionCall
    placement: Placement
    preemptible: bool = False
    """Whether it generates, and other work of its ranks goes first, between two tokens."""
    interruptible: bool = False
    """Whether it generates, and accepts new weights of its model between two tokens."""
    remembers: bool = False
    """Whether it keeps a memory from one step to the next, as calls of training do."""
    redraws: tuple[ModelFunctionCall, ...] = ()
    """The calls that are repeated after it, for other rows in place of those that it rejects."""
    again: tuple[str, ...] = ()
    """The call, if any, whose rejections it is repeated for."""
    shares: tuple[tuple[tuple[int, int], ...], ...] = ()
    """(sample id, dataset row) pairs by dp_rank; set when it starts."""
    version: int = NOT_STARTED
    """The policy version that the call's model must have; set when it starts."""
    dtypes: dict[str, str] = {}
    """Types of the inputs that other calls made; a rank without samples needs them too. Set at the start."""

    @property
    def call(self) -> str:
        """The call that it is."""
        return self.function.name

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks of the placement."""
        return self.placement.ranks

    @property
    def model(self) -> str | None:
        """The model that it runs, if it runs one."""
        return self.function.model

    @property
    def engine(self) -> str:
        """The engine that runs the model."""
        return self.function.engine

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The weights that it uses; none where it has no model."""
        return (Weights(self.model, self.placement, self.engine),) if self.model else ()

    @property
    def trains(self) -> bool:
        """Whether it changes its model's weights."""
        return self.function.kind is CallKind.TRAIN

    @property
    def reads(self) -> tuple[Resource, ...]:
        """Its inputs, the rejections that it answers, its memory and its weights."""
        rejections = tuple(Outputs(call) for call in self.again)
        return (Inputs(self.call), *rejections, *self._memory, *self.weights)

    @property
    def writes(self) -> tuple[Resource, ...]:
        """Its outputs, its memory, its turn to generate, and its weights if it trains."""
        turns = tuple(Turn(rank) for rank in self.ranks) if self.preemptible else ()
        weights = self.weights if self.trains else ()
        return (Outputs(self.call), *turns, *self._memory, *weights)

    @property
    def _memory(self) -> tuple[Memory, ...]:
        return (Memory(self.call),) if self.remembers else ()

    @property
    def changed_model(self) -> str | None:
        """Its model, if it trains."""
        return self.model if self.trains else None

    @property
    def read_model(self) -> str | None:
        """Its model, if it has one."""
        return self.model

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Settle each rank's share; None for a repetition where nothing was rejected."""
        shares = _pairs(start.ledger.shares(self.function, self.placement))
        if self.again and not any(shares):
            return None
        known = start.ledger.dtypes
        dtypes = {key: known[key] for key in self.function.inputs if key in known}
        return {"shares": shares, "version": start.version, "dtypes": dtypes}


class Forget(Instruction, frozen=True, kw_only=True):
    """Drop the pass's samples everywhere."""

    calls: tuple[str, ...]
    ranks: tuple[int, ...]

    @property
    def writes(self) -> tuple[Resource, ...]:
        """The inputs and outputs of every call."""
        inputs = tuple(Inputs(call) for call in self.calls)
        outputs = tuple(Outputs(call) for call in self.calls)
        return (*inputs, *outputs)


class Save(AtPlacement, frozen=True, kw_only=True):
    """Write a Hugging Face checkpoint of `model`."""

    directory: str = ""
    """Where it is written; set when it starts."""

    @property
    def reads(self) -> tuple[Resource, ...]:
        """The weights that are written."""
        return self.weights

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Return the directory of the job."""
        return {"directory": start.directory}


class OfSnapshot(AtPlacement, frozen=True, kw_only=True):
    """An instruction about all that resuming a model, or calls that remember something, needs."""

    calls: tuple[str, ...] = ()
    """The calls here whose memory is part of it. Where `model` is empty, it is nothing else."""

    @property
    def name(self) -> str:
        """The folder of its files: the model, or the first call."""
        return self.model or f"call-{self.calls[0]}"

    @property
    def reads(self) -> tuple[Resource, ...]:
        """The model's weights and the calls' memories."""
        memories = tuple(Memory(call) for call in self.calls)
        return (*self.weights, *memories)


class Snapshot(OfSnapshot, frozen=True, kw_only=True):
    """Copy the model and the memories, and begin to write the copies."""

    directory: str = ""
    """Where they are written; set when it starts."""

    def begin(self, start: Start) -> dict[str, Any] | None:
        """Return the directory of the job."""
        return {"directory": start.directory}


class Flush(OfSnapshot, frozen=True, kw_only=True):
    """Wait until the same snapshot of the job is written."""


AnyInstruction = Reallocate | Release | Offload | Move | RunCall | Forget | Save | Snapshot | Flush
"""Every kind of instruction; a worker has a handler for each."""


def union(*placements: Placement) -> tuple[int, ...]:
    """Return all ranks of the placements, in ascending order."""
    ranks: set[int] = set()
    for placement in placements:
        ranks.update(placement.ranks)
    return tuple(sorted(ranks))


def _ranks_of(moves: Sequence[KeyMove]) -> set[int]:
    """Return the ranks that send or receive."""
    ranks: set[int] = set()
    for move in moves:
        ranks.update(move.source, move.target)
    return ranks


def _pairs(shares: Shares) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return (sample id, dataset row) pairs of each share."""
    pairs = []
    for share in shares:
        pairs.append(tuple((sample.id, sample.row) for sample in share))
    return tuple(pairs)
