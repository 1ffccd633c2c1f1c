"""The process groups of a placement, seen from one rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from realrl.api.mesh import Coordinate, Placement

WIRES = ("hidden", "gradient", "hidden_back", "gradient_back")
"""Between neighbours, and between the last stage and the first where a model goes through them again."""


@dataclass(frozen=True)
class Groups:
    """A rank's groups; None where the rank would be alone.

    `tied` joins the first and the last stage, which share a tied embedding. `wires` join the stages of a
    pipeline, one group for each kind of message between two of them.
    """

    placement: Placement
    rank: int
    tp: ProcessGroup | None
    dp: ProcessGroup | None
    dp_slice: ProcessGroup | None
    tied: ProcessGroup | None
    mesh: ProcessGroup | None
    wires: Mapping[str, ProcessGroup]

    @property
    def place(self) -> Coordinate:
        return self.placement.coordinate(self.rank)

    @property
    def is_last_stage(self) -> bool:
        return self.place.pp_rank == self.placement.layout.pp - 1

    def reduce(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over the data-parallel ranks. Collective over them."""
        return all_reduce(tensor.clone(), self.dp)

    def reduce_mesh(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all ranks of the placement. Collective over them."""
        return all_reduce(tensor.clone(), self.mesh)


def all_reduce(tensor: Tensor, group: ProcessGroup | None) -> Tensor:
    """Sum `tensor` in place over `group`, and return it."""
    if group is not None:
        dist.all_reduce(tensor, group=group)
    return tensor


def create_groups(
    placements: Iterable[Placement], rank: int, timeout: timedelta | None = None
) -> dict[Placement, Groups]:
    """This rank's groups in each placement that it is part of. Their collectives fail after `timeout`; None
    for torch's own, which is not the default group's.

    Collective over the whole world: every rank passes the same placements.
    """
    placements = sorted(set(placements))
    rank_sets = sorted({ranks for p in placements for ranks in _rank_sets(p)})
    made = {ranks: dist.new_group(list(ranks), timeout) for ranks in rank_sets}
    pipelines = sorted({ranks for p in placements for ranks in _pipelines(p)})
    wires = {ranks: {wire: dist.new_group(list(ranks), timeout) for wire in WIRES} for ranks in pipelines}
    return {p: _groups_of(p, rank, made, wires) for p in placements if rank in p.ranks}


class Links(NamedTuple):
    """How many communicators a rank comes to have."""

    groups: int
    """Of several ranks, the whole world's among them."""
    pairs: int
    """Of two stages of a pipeline, one for each kind of message between them."""


def links_of(placements: Iterable[Placement], rank: int, world_size: int) -> Links:
    """What `create_groups` leads to, where each single message has a communicator of its two ranks."""
    own = [p for p in set(placements) if rank in p.ranks]
    joined = {ranks for p in own for ranks in _sets_around(p, p.coordinate(rank)).values() if len(ranks) > 1}
    pairs = sum(_wires_at(p, p.coordinate(rank)) for p in own)
    return Links(len(joined) + (world_size > 1), pairs)


def _wires_at(placement: Placement, place: Coordinate) -> int:
    """Hidden states and gradients, to the stage before and to the one after."""
    last = placement.layout.pp - 1
    if last == 0:
        return 0
    is_ring = placement.layout.vp > 1
    return 2 * ((is_ring or place.pp_rank > 0) + (is_ring or place.pp_rank < last))


def local_groups(placement: Placement) -> Groups:
    """The groups of a placement of one rank; needs no process group."""
    (rank,) = placement.ranks
    return Groups(placement, rank, None, None, None, None, None, {})


def _rank_sets(placement: Placement) -> set[tuple[int, ...]]:
    """Every set of several ranks that some group of this placement joins."""
    sets = set()
    for rank in placement.ranks:
        sets.update(_sets_around(placement, placement.coordinate(rank)).values())
    return {ranks for ranks in sets if len(ranks) > 1}


def _sets_around(placement: Placement, place: Coordinate) -> dict[str, tuple[int, ...]]:
    pp_rank, dp_rank, tp_rank = place
    layout = placement.layout
    at = placement.rank
    sets = {
        "tp": (at(pp_rank=pp_rank, dp_rank=dp_rank, tp_rank=t) for t in range(layout.tp)),
        "dp": (at(pp_rank=pp_rank, dp_rank=d, tp_rank=tp_rank) for d in range(layout.dp)),
        "dp_slice": placement.dp_slice(dp_rank),
        "mesh": placement.ranks,
        "tied": (at(pp_rank=p, dp_rank=dp_rank, tp_rank=tp_rank) for p in {0, layout.pp - 1}),
    }
    return {name: tuple(sorted(ranks)) for name, ranks in sets.items()}


def _pipeline(placement: Placement, place: Coordinate) -> tuple[int, ...]:
    """The ranks that a micro-batch passes on its way through the stages."""
    _, dp_rank, tp_rank = place
    stages = range(placement.layout.pp)
    return tuple(placement.rank(pp_rank=p, dp_rank=dp_rank, tp_rank=tp_rank) for p in stages)


def _pipelines(placement: Placement) -> set[tuple[int, ...]]:
    """All of them; none where there is one stage."""
    found = {_pipeline(placement, placement.coordinate(rank)) for rank in placement.ranks}
    return {ranks for ranks in found if len(ranks) > 1}


def _groups_of(
    placement: Placement,
    rank: int,
    made: Mapping[tuple[int, ...], ProcessGroup],
    wires: Mapping[tuple[int, ...], Mapping[str, ProcessGroup]],
) -> Groups:
    place = placement.coordinate(rank)
    sets = _sets_around(placement, place)
    if place.pp_rank not in (0, placement.layout.pp - 1):
        sets["tied"] = (rank,)
    joined = {name: made.get(ranks) for name, ranks in sets.items()}
    return Groups(placement, rank, **joined, wires=wires.get(_pipeline(placement, place), {}))
