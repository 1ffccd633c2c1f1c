"""What instructions read and write: the scheduler orders them by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from realrl.api.graph import OWN_ENGINE
from realrl.api.mesh import Placement


class Weights(NamedTuple):
    """A model's weights at a placement, in an engine there; shared by all passes."""

    model: str
    placement: Placement
    engine: str = OWN_ENGINE


@dataclass(frozen=True)
class Inputs:
    """A call's inputs, on the ranks where it runs."""

    call: str


@dataclass(frozen=True)
class Outputs:
    """A call's outputs, on the ranks that made them."""

    call: str


@dataclass(frozen=True)
class Memory:
    """What a call of training remembers: read as the step before left it, and written for the step after."""

    call: str


@dataclass(frozen=True)
class Turn:
    """A rank's turn to generate: calls that are preempted by other work are not preempted by each other."""

    rank: int


Resource = Weights | Inputs | Outputs | Memory | Turn
