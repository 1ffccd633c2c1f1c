"""The edges between instructions, in words."""

from __future__ import annotations

from collections.abc import Sequence

from realrl.program.instructions import AnyInstruction, Move, RunCall
from realrl.program.resources import Inputs, Memory, Outputs, Resource, Weights


def edge(first: AnyInstruction, then: AnyInstruction, *, of_one_pass: bool) -> str:
    """Return what `then` waits for `first` for, such as `actor_gen -> move reward (input_ids)`."""
    words: list[str] = []
    for resource in _shared(first, then):
        words += _words(resource, first, then, of_one_pass)
    what = ", ".join(dict.fromkeys(words)) or "their order"
    return f"{_name(first)} -> {_name(then)} ({what})"


def _name(instruction: AnyInstruction) -> str:
    kind = "" if isinstance(instruction, RunCall) else f"{type(instruction).__name__.lower()} "
    return f"{kind}{instruction.call or instruction.read_model or ''}".rstrip()


def _shared(first: AnyInstruction, then: AnyInstruction) -> list[Resource]:
    """Return what both use and one of them writes."""
    writes = {*first.writes, *then.writes}
    uses = {*then.reads, *then.writes}
    return [resource for resource in (*first.reads, *first.writes) if resource in writes and resource in uses]


def _words(
    resource: Resource, first: AnyInstruction, then: AnyInstruction, of_one_pass: bool
) -> Sequence[str]:
    match resource:
        case Weights():
            return [f"weights of {resource.model} at {resource.placement}"]
        case Outputs() | Inputs():
            return _keys(first, then) if of_one_pass else []
        case Memory():
            return [f"memory of {resource.call}"]
    return ["turn to generate"]


def _keys(first: AnyInstruction, then: AnyInstruction) -> Sequence[str]:
    """Return the keys that the one makes or brings, and the other takes or drops."""
    if isinstance(first, Move):
        given = first.keys
    elif isinstance(first, RunCall):
        given = first.function.outputs
    else:
        return []
    if isinstance(then, Move):
        return [key for key in given if key in then.keys]
    if isinstance(then, RunCall):
        return [key for key in given if key in then.function.inputs]
    return given
