"""Reads an allocation: which ranks and which layout each call gets.

    allocation  = mesh {"+" mesh}             each mesh takes the ranks after those of the one before it
    mesh        = item {"," item}             items of one mesh share its ranks, from its first one on
    item        = [pattern (":" | ".")] layout
    layout      = letters d, t (or m), p and v in any order, each with a count: d2t2, p2m1d4, p2v2

v is the number of chunks of layers on each pipeline stage (interleaved stages).

A pattern is a call's name, may have `*` and `?`, or is `gen` for the calls that generate. A call goes to
the first item whose pattern fits it; an item without a pattern takes the calls that are left.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from realrl.api.config import PlacementConfig
from realrl.api.mesh import DeviceMesh, ExecutionPlan, ParallelLayout, Placement

GENERATING = "gen"
EXAMPLES = "examples: actor_gen:d2,*:p2 (shared ranks), gen.d2+p2 (disjoint ranks)"
_ITEM = re.compile(r"(?:(?P<pattern>[A-Za-z0-9_*?\[\]!-]+)[:.])?(?P<layout>(?:[a-z][0-9]{1,9})+)")
_AXES = {"d": "dp", "t": "tp", "m": "tp", "p": "pp", "v": "vp"}
_MAX_RANKS = 1 << 17


@dataclass(frozen=True)
class _Item:
    text: str
    pattern: str | None
    layout: ParallelLayout

    def fits(self, call: str, generate_calls: Collection[str]) -> bool:
        if self.pattern is None:
            return True
        return fnmatchcase(call, self.pattern) or (self.pattern == GENERATING and call in generate_calls)


def parse_allocation(
    text: str,
    call_names: Sequence[str],
    generate_calls: Collection[str],
    placements: Mapping[str, PlacementConfig],
) -> ExecutionPlan:
    """The plan that `text` gives to `call_names`; a call in `placements` is placed as it says there.

    Raises:
        ValueError: text that does not fit the grammar, a call that is unknown, or left without a place, an
            item that comes too late for its calls, or a rank without a call.
    """
    found = {name: _in_full(name, placement, call_names) for name, placement in placements.items()}
    meshes = _parse(text) if text.strip() else []
    _check_names(meshes, call_names, generate_calls)
    claimed: set[str] = set()  # by items; a call that is placed in full may still be named in one
    for item, ranks_from in _by_precedence(meshes):
        fitting = {call for call in call_names if item.fits(call, generate_calls)}
        if fitting and fitting <= claimed:
            raise _refused(
                f"{item.text!r} comes too late, items before it take its calls; put it first or leave it out"
            )
        ranks = tuple(range(ranks_from, ranks_from + item.layout.size))
        place = Placement(DeviceMesh(ranks), item.layout)
        found.update({call: place for call in fitting - found.keys()})
        claimed |= fitting
    if left := [call for call in call_names if call not in found]:
        raise _refused(f"no item of {text!r} fits {', '.join(left)}; add an item, as *:d1")
    plan = ExecutionPlan({call: found[call] for call in call_names})
    _check_ranks(plan)
    return plan


def parse_layout(text: str) -> ParallelLayout:
    """The layout that `d2t2`, `p2m1d4` and the like name."""
    degrees: dict[str, int] = {}
    for letter, count in re.findall(r"([a-z])([0-9]+)", text):
        axis = _AXES.get(letter)
        if axis is None:
            raise _refused(
                f"layout {text!r} has the letter {letter!r}; expected d, t (or m), p and v, each with a count"
            )
        if axis in degrees:
            raise _refused(f"layout {text!r} gives {axis} twice")
        degrees[axis] = int(count)
        if not 1 <= degrees[axis] <= _MAX_RANKS:
            raise _refused(f"layout {text!r} needs each count from 1 to {_MAX_RANKS}, got {letter}{count}")
    try:
        layout = ParallelLayout(**degrees)
    except ValueError as error:
        raise _refused(f"{text!r}: {error}") from None
    if layout.size > _MAX_RANKS:
        raise _refused(f"layout {text!r} needs {layout.size} ranks; at most {_MAX_RANKS}")
    return layout


def _parse(text: str) -> list[list[_Item]]:
    return [[_parse_item(item.strip(), text) for item in mesh.split(",")] for mesh in text.split("+")]


def _parse_item(item: str, text: str) -> _Item:
    match = _ITEM.fullmatch(item)
    if match is None:
        raise _refused(
            f"cannot read {item!r} in {text!r}; expected a call's name and a layout, as actor_gen:d2"
        )
    return _Item(item, match["pattern"], parse_layout(match["layout"]))


def _by_precedence(meshes: list[list[_Item]]) -> Iterator[tuple[_Item, int]]:
    """Items with their first rank, as they stand, those without a pattern last."""
    placed, first = [], 0
    for mesh in meshes:
        placed += [(item, first) for item in mesh]
        first += max(item.layout.size for item in mesh)
    yield from sorted(placed, key=lambda pair: pair[0].pattern is None)


def _check_names(
    meshes: list[list[_Item]], call_names: Sequence[str], generate_calls: Collection[str]
) -> None:
    """A wildcard may fit nothing; a plain name must be a call's."""
    for item in (item for mesh in meshes for item in mesh):
        is_plain = item.pattern is not None and not set(item.pattern) & set("*?[")
        if is_plain and not any(item.fits(call, generate_calls) for call in call_names):
            raise _refused(f"{item.text!r} names no call; {_known(item.pattern, call_names)}")


def _in_full(name: str, config: PlacementConfig, call_names: Sequence[str]) -> Placement:
    if name not in call_names:
        raise ValueError(f"placements.{name}: there is no such call; {_known(name, call_names)}")
    try:
        layout = ParallelLayout(pp=config.pp, dp=config.dp, tp=config.tp, vp=config.vp)
        return Placement(DeviceMesh(tuple(config.ranks)), layout)
    except ValueError as error:
        raise ValueError(f"placements.{name}: {error}") from None


def _check_ranks(plan: ExecutionPlan) -> None:
    used = {rank for placement in plan.placements.values() for rank in placement.ranks}
    if idle := max(used) + 1 - len(used):
        first = next(rank for rank in range(max(used)) if rank not in used)
        raise _refused(f"{idle} of the ranks 0 to {max(used)} run no call (first: {first}); leave no gaps")


def _known(name: str, call_names: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, call_names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"the calls are {', '.join(call_names)}{hint}"


def _refused(message: str) -> ValueError:
    return ValueError(f"allocation: {message} ({EXAMPLES})")
