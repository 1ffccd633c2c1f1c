"""The edges between nodes, in words."""

from __future__ import annotations

from collections.abc import Iterator

from realrl.program.instructions import Call, Inputs, Move, Node, Outputs, Resource, Weights


def edge(first: Node, then: Node, *, of_one_pass: bool) -> str:
    """What `then` waits for `first` for, as `actor_gen -> move reward (input_ids)`."""
    what = dict.fromkeys(
        word for resource in _shared(first, then) for word in _words(resource, first, then, of_one_pass)
    )
    return f"{_name(first)} -> {_name(then)} ({', '.join(what) or 'their order'})"


def _name(node: Node) -> str:
    kind = "" if isinstance(node, Call) else f"{type(node).__name__.lower()} "
    return f"{kind}{node.call or getattr(node, 'model', '')}".rstrip()


def _shared(first: Node, then: Node) -> Iterator[Resource]:
    """What both use and one of them writes."""
    writes, uses = {*first.writes, *then.writes}, {*then.reads, *then.writes}
    return (r for r in (*first.reads, *first.writes) if r in writes and r in uses)


def _words(resource: Resource, first: Node, then: Node, of_one_pass: bool) -> list[str]:
    match resource:
        case Weights():
            return [f"weights of {resource.model} at {resource.placement}"]
        case Outputs() | Inputs():
            return _keys(first, then) if of_one_pass else []
    return ["turn to generate"]


def _keys(first: Node, then: Node) -> list[str]:
    """That the one makes or brings, and the other takes or drops."""
    given = first.keys if isinstance(first, Move) else first.function.outputs
    if not isinstance(then, Move | Call):
        return list(given)
    taken = then.keys if isinstance(then, Move) else then.function.inputs
    return [key for key in given if key in taken]
