"""What passes over a dataflow graph are made of: nodes that say what they read and write.

A node waits for the last writer of what it reads, and for the readers of what it overwrites. That one
rule orders the nodes of a step by its keys, and steps among each other by the weights of the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from realrl.api.graph import OWN_ENGINE, CallKind, ModelFunctionCall
from realrl.api.mesh import Placement


class Weights(NamedTuple):
    """A model's weights at a placement, in an engine there; shared by all passes."""

    model: str
    placement: Placement
    engine: str = OWN_ENGINE


class Inputs(NamedTuple):
    """A call's inputs, on the ranks where it runs."""

    call: str


class Outputs(NamedTuple):
    """A call's outputs, on the ranks that made them."""

    call: str


class Turn(NamedTuple):
    """A rank's turn to generate: calls that step aside for other work do not for each other."""

    rank: int


Resource = Weights | Inputs | Outputs | Turn


class _Placed:
    """A node that runs on the ranks of its placement, with its model's weights there."""

    engine = OWN_ENGINE

    @property
    def ranks(self) -> tuple[int, ...]:
        return self.placement.ranks

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (Weights(self.model, self.placement, self.engine),) if self.model else ()


@dataclass(frozen=True)
class Reallocate:
    """Bring `model` from its home to where `call` runs; or blend it into another by the share `eta`."""

    call: str
    model: str
    source: Placement
    target: Placement
    into: str
    """The model whose weights are written: `model` itself, but for a blend."""
    eta: float = 1.0
    engine: str = OWN_ENGINE
    """The engine that gets the weights."""

    @property
    def ranks(self) -> tuple[int, ...]:
        return union(self.source, self.target)

    @property
    def reads(self) -> tuple[Resource, ...]:
        return (Weights(self.model, self.source),)

    @property
    def writes(self) -> tuple[Resource, ...]:
        return (Weights(self.into, self.target, self.engine),)


@dataclass(frozen=True)
class Release(_Placed):
    """Drop the replica of `model` that `call` was the last to use."""

    call: str
    model: str
    placement: Placement
    engine: str = OWN_ENGINE
    reads: tuple[Resource, ...] = ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        return self.weights


@dataclass(frozen=True)
class Offload(_Placed):
    """Keep the weights of `model` in host memory from now on, or bring them `back` to the device."""

    model: str
    placement: Placement
    back: bool
    call: str = ""
    reads: tuple[Resource, ...] = ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        return self.weights


@dataclass(frozen=True)
class Move:
    """Bring to `function` the keys that other calls made."""

    function: ModelFunctionCall
    placement: Placement
    keys: tuple[str, ...]
    producers: tuple[str, ...]

    @property
    def call(self) -> str:
        return self.function.name

    @property
    def reads(self) -> tuple[Resource, ...]:
        return tuple(map(Outputs, self.producers))

    @property
    def writes(self) -> tuple[Resource, ...]:
        return (Inputs(self.call),)


@dataclass(frozen=True)
class Call(_Placed):
    """Run `function` on `placement`."""

    function: ModelFunctionCall
    placement: Placement
    steps_aside: bool = False
    """It generates, and lets what else its ranks are to do go first, between two tokens."""
    interruptible: bool = False
    """New weights of its model, too."""
    redraws: tuple[ModelFunctionCall, ...] = ()
    """The calls that are made again after it, for other rows in place of those that it rejects."""
    again: tuple[str, ...] = ()
    """The call, if any, whose rejections it is made again for."""

    @property
    def call(self) -> str:
        return self.function.name

    @property
    def model(self) -> str | None:
        return self.function.model

    @property
    def engine(self) -> str:
        return self.function.engine

    @property
    def trains(self) -> bool:
        return self.function.kind is CallKind.TRAIN

    @property
    def reads(self) -> tuple[Resource, ...]:
        return (Inputs(self.call), *map(Outputs, self.again), *self.weights)

    @property
    def writes(self) -> tuple[Resource, ...]:
        turns = map(Turn, self.ranks if self.steps_aside else ())
        return (Outputs(self.call), *turns, *(self.weights if self.trains else ()))


@dataclass(frozen=True)
class Forget:
    """Drop the pass's samples everywhere."""

    calls: tuple[str, ...]
    ranks: tuple[int, ...]
    call: str = ""
    reads: tuple[Resource, ...] = ()

    @property
    def writes(self) -> tuple[Resource, ...]:
        return (*map(Inputs, self.calls), *map(Outputs, self.calls))


@dataclass(frozen=True)
class _Kept(_Placed):
    """About the weights of `model`, which stay as they are."""

    model: str
    placement: Placement
    call: str = ""
    writes: tuple[Resource, ...] = ()

    @property
    def reads(self) -> tuple[Resource, ...]:
        return self.weights


class Save(_Kept):
    """Write a checkpoint of `model`."""


class Snapshot(_Kept):
    """Copy all that `model` needs to be gone on with, and begin to write it."""


class Flush(_Kept):
    """Wait until the snapshot of `model` is written, once it is trained on."""


Node = Reallocate | Release | Offload | Move | Call | Forget | Save | Snapshot | Flush


def union(*placements: Placement) -> tuple[int, ...]:
    """All of their ranks."""
    return tuple(sorted({rank for placement in placements for rank in placement.ranks}))
