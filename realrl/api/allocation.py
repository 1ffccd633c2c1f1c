"""Reads an allocation: which ranks and which layout each call gets.

    allocation  = mesh {"+" mesh}             each mesh takes the ranks after those of the one before it
    mesh        = item {"," item}             items of one mesh share its ranks, from its first one on
    item        = [pattern (":" | ".")] layout
    layout      = letters d, t (or m), p and v in any order, each with a count: d2t2, p2m1d4, p2v2

v is the number of model chunks on each pipeline stage (interleaved stages).

A pattern is a call's name, may have `*` and `?`, or is `gen` for the calls that generate. A call goes to
the first item whose pattern matches it; an item without a pattern takes the calls that are left.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from realrl.api.config import PlacementConfig
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement

GENERATING = "gen"
EXAMPLES = "examples: actor_gen:d2,*:p2 (shared ranks), gen.d2+p2 (disjoint ranks)"
_ITEM = re.compile(r"(?:(?P<pattern>[A-Za-z0-9_*?\[\]!-]+)[:.])?(?P<layout>(?:[a-z][0-9]{1,9})+)")
_DEGREE = re.compile(r"([a-z])([0-9]+)")
_AXES = {"d": "dp", "t": "tp", "m": "tp", "p": "pp", "v": "vp"}
_WILDCARDS = frozenset("*?[")
_MAX_RANKS = 1 << 17


@dataclass(frozen=True)
class _Item:
    """One item of an allocation, with the first rank of its mesh."""

    text: str
    pattern: str | None
    layout: ParallelLayout
    first_rank: int = 0

    def matches(self, call: str, generate_calls: Collection[str]) -> bool:
        """Return whether the item's pattern matches a call."""
        if self.pattern is None:
            return True
        if self.pattern == GENERATING and call in generate_calls:
            return True
        return fnmatchcase(call, self.pattern)

    @property
    def placement(self) -> Placement:
        """The mesh and layout of the calls that go to this item."""
        end = self.first_rank + self.layout.size
        ranks = range(self.first_rank, end)
        mesh = DeviceMesh(tuple(ranks))
        return Placement(mesh, self.layout)


def parse_allocation(
    text: str,
    call_names: Sequence[str],
    generate_calls: Collection[str],
    placements: Mapping[str, PlacementConfig],
) -> ExecutionPlan:
    """Return the plan that `text` gives to `call_names`; `placements` overrides it for single calls.

    Raises:
        ValueError: text that does not fit the grammar, a call that is unknown, or left without a place, an
            item that comes too late for its calls, or a rank without a call.
    """
    found: dict[str, Placement] = {}
    for name, config in placements.items():
        found[name] = _placement_of(name, config, call_names)
    items = _parse(text)
    _check_names(items, call_names, generate_calls)
    # Calls that earlier items take; a call in `placements` may still be named in an item.
    claimed: set[str] = set()
    for item in _by_precedence(items):
        matching = [call for call in call_names if item.matches(call, generate_calls)]
        if matching and claimed.issuperset(matching):
            raise _refused(
                f"{item.text!r} comes too late, items before it take its calls; put it first or leave it out"
            )
        for call in matching:
            found.setdefault(call, item.placement)
        claimed.update(matching)
    return _plan_of(found, call_names, text)


def _plan_of(found: Mapping[str, Placement], call_names: Sequence[str], text: str) -> ExecutionPlan:
    """Return the plan of all calls, in their order."""
    left = [call for call in call_names if call not in found]
    if left:
        raise _refused(f"no item of {text!r} fits {', '.join(left)}; add an item, as *:d1")
    in_order = {call: found[call] for call in call_names}
    plan = ExecutionPlan(in_order)
    _check_ranks(plan)
    return plan


def parse_layout(text: str) -> ParallelLayout:
    """Return the layout that a text such as `d2t2` or `p2m1d4` names.

    Raises:
        ValueError: an unknown or repeated letter, or a count that cannot be.
    """
    degrees: dict[str, int] = {}
    for letter, count in _DEGREE.findall(text):
        axis = _AXES.get(letter)
        if axis is None:
            raise _refused(
                f"layout {text!r} has the letter {letter!r}; expected d, t (or m), p and v, each with a count"
            )
        if axis in degrees:
            raise _refused(f"layout {text!r} gives {axis} twice")
        degree = int(count)
        if not 1 <= degree <= _MAX_RANKS:
            raise _refused(f"layout {text!r} needs each count from 1 to {_MAX_RANKS}, got {letter}{count}")
        degrees[axis] = degree
    try:
        layout = ParallelLayout(**degrees)
    except ValueError as error:
        raise _refused(f"{text!r}: {error}") from None
    if layout.size > _MAX_RANKS:
        raise _refused(f"layout {text!r} needs {layout.size} ranks; at most {_MAX_RANKS}")
    return layout


def _parse(text: str) -> list[_Item]:
    """Return the items of all meshes, as they stand."""
    items: list[_Item] = []
    if not text.strip():
        return items
    first_rank = 0
    for mesh in text.split("+"):
        width = 0
        for part in mesh.split(","):
            item = _parse_item(part.strip(), text, first_rank)
            items.append(item)
            width = max(width, item.layout.size)
        first_rank += width
    return items


def _parse_item(item: str, text: str, first_rank: int) -> _Item:
    """Return the item of the allocation `text` that is written as `item`."""
    match = _ITEM.fullmatch(item)
    if match is None:
        raise _refused(
            f"cannot read {item!r} in {text!r}; expected a call's name and a layout, as actor_gen:d2"
        )
    layout = parse_layout(match["layout"])
    return _Item(item, match["pattern"], layout, first_rank)


def _by_precedence(items: Sequence[_Item]) -> list[_Item]:
    """Return items as they stand, but those without a pattern last."""
    return sorted(items, key=lambda item: item.pattern is None)


def _check_names(items: Sequence[_Item], call_names: Sequence[str], generate_calls: Collection[str]) -> None:
    """Check that each item with a plain name matches a call; a wildcard may match nothing."""
    for item in items:
        if item.pattern is None or _WILDCARDS.intersection(item.pattern):
            continue
        if not any(item.matches(call, generate_calls) for call in call_names):
            known = _known(item.pattern, call_names)
            raise _refused(f"{item.text!r} names no call; {known}")


def _placement_of(name: str, config: PlacementConfig, call_names: Sequence[str]) -> Placement:
    """Return the placement that the key `placements.NAME` gives."""
    if name not in call_names:
        known = _known(name, call_names)
        raise ValueError(f"placements.{name}: there is no such call; {known}")
    try:
        layout = ParallelLayout(
            pp=config.pp,
            dp=config.dp,
            tp=config.tp,
            vp=config.vp,
        )
        mesh = DeviceMesh(tuple(config.ranks))
        return Placement(mesh, layout)
    except ValueError as error:
        raise ValueError(f"placements.{name}: {error}") from None


def _check_ranks(plan: ExecutionPlan) -> None:
    """Check that every rank up to the last one runs a call."""
    used: set[int] = set()
    for placement in plan.placements.values():
        used.update(placement.ranks)
    last = max(used)
    idle = [rank for rank in range(last) if rank not in used]
    if idle:
        raise _refused(f"{len(idle)} of the ranks 0 to {last} run no call (first: {idle[0]}); leave no gaps")


def _known(name: str, call_names: Sequence[str]) -> str:
    """Return the part of a message that lists the calls and suggests the nearest one."""
    nearest = difflib.get_close_matches(name, call_names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    known = ", ".join(call_names)
    return f"the calls are {known}{hint}"


def _refused(message: str) -> ValueError:
    """Return the error about an allocation."""
    return ValueError(f"allocation: {message} ({EXAMPLES})")
