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
from realrl.base.waiting import wait_for_ranks

WIRES = ("hidden", "gradient", "hidden_back", "gradient_back")
"""Kinds of messages between two stages.

Those with `_back` travel between the last stage and the first, if a micro-batch passes the stages repeatedly.
"""

Ranks = tuple[int, ...]


@dataclass(frozen=True)
class Groups:
    """The groups of one rank; None for a group that has no other rank."""

    placement: Placement
    rank: int
    tp: ProcessGroup | None
    dp: ProcessGroup | None
    dp_slice: ProcessGroup | None
    """The ranks that work on one data-parallel share of a batch."""
    tied: ProcessGroup | None
    """The first and the last stage, which share a tied embedding."""
    mesh: ProcessGroup | None
    """All ranks of the placement."""
    wires: Mapping[str, ProcessGroup]
    """The stages of a pipeline, in one group for each kind of message between two of them."""

    @property
    def place(self) -> Coordinate:
        """This rank's place on each axis of the mesh."""
        return self.placement.coordinate(self.rank)

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank is on the pipeline's last stage."""
        return self.place.pp_rank == self.placement.layout.pp - 1

    def reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over the data-parallel ranks.

        Collective: over the data-parallel ranks.
        """
        return all_reduce(tensor.clone(), self.dp)

    def reduce_mesh(self, tensor: Tensor) -> Tensor:
        """Return the sum of `tensor` over all ranks of the placement.

        Collective: over the placement.
        """
        return all_reduce(tensor.clone(), self.mesh)


def all_reduce(tensor: Tensor, group: ProcessGroup | None) -> Tensor:
    """Sum `tensor` in place over `group`, and return it."""
    if group is not None:
        wait_for_ranks(dist.all_reduce, tensor, group=group)
    return tensor


def create_groups(
    placements: Iterable[Placement], rank: int, timeout: timedelta | None = None
) -> dict[Placement, Groups]:
    """Return this rank's groups in each placement that it is part of.

    Their collectives fail after `timeout`; with None, after torch's own, not the default group's.

    Collective: over the whole world; every rank passes the same placements.
    """
    distinct = sorted(set(placements))
    rank_sets: set[Ranks] = set()
    pipelines: set[Ranks] = set()
    for placement in distinct:
        rank_sets |= _rank_sets(placement)
        pipelines |= _pipelines(placement)

    # Every rank creates every group, in the same order.
    made: dict[Ranks, ProcessGroup] = {}
    for ranks in sorted(rank_sets):
        made[ranks] = wait_for_ranks(dist.new_group, list(ranks), timeout)
    wires: dict[Ranks, dict[str, ProcessGroup]] = {}
    for ranks in sorted(pipelines):
        wires[ranks] = {}
        for wire in WIRES:
            wires[ranks][wire] = wait_for_ranks(dist.new_group, list(ranks), timeout)

    groups: dict[Placement, Groups] = {}
    for placement in distinct:
        if rank in placement.ranks:
            groups[placement] = _groups_of(placement, rank, made, wires)
    return groups


class Links(NamedTuple):
    """The number of communicators of a rank."""

    groups: int
    """Communicators of several ranks, including the whole world's."""
    pairs: int
    """Communicators of two stages of a pipeline, one for each kind of message between them."""


def links_of(placements: Iterable[Placement], rank: int, world_size: int) -> Links:
    """Return the communicators that `create_groups` leads to.

    Each message between two ranks has a communicator of these two.
    """
    joined: set[Ranks] = set()
    num_pairs = 0
    for placement in set(placements):
        if rank not in placement.ranks:
            continue
        place = placement.coordinate(rank)
        joined |= _of_several(_sets_around(placement, place).values())
        num_pairs += _wires_at(placement, place)

    has_world = world_size > 1
    return Links(len(joined) + has_world, num_pairs)


def _wires_at(placement: Placement, place: Coordinate) -> int:
    """Count the wires of hidden states and of gradients, to the stage before and to the stage after."""
    last = placement.layout.pp - 1
    if last == 0:
        return 0
    is_ring = placement.layout.vp > 1
    has_previous = is_ring or place.pp_rank > 0
    has_next = is_ring or place.pp_rank < last
    return 2 * (has_previous + has_next)


def local_groups(placement: Placement) -> Groups:
    """Return the groups of a placement of one rank; needs no process group."""
    (rank,) = placement.ranks
    return Groups(
        placement,
        rank,
        tp=None,
        dp=None,
        dp_slice=None,
        tied=None,
        mesh=None,
        wires={},
    )


def _of_several(rank_sets: Iterable[Ranks]) -> set[Ranks]:
    return {ranks for ranks in rank_sets if len(ranks) > 1}


def _rank_sets(placement: Placement) -> set[Ranks]:
    """Return every set of several ranks that a group of this placement joins."""
    sets: set[Ranks] = set()
    for rank in placement.ranks:
        place = placement.coordinate(rank)
        sets.update(_sets_around(placement, place).values())
    return _of_several(sets)


def _sets_around(placement: Placement, place: Coordinate) -> dict[str, Ranks]:
    """Return the ranks of each group of the rank at `place`, in ascending order."""
    layout = placement.layout
    dp_slice = placement.dp_slice(place.dp_rank)
    return {
        "tp": _ranks_along(placement, place, "tp_rank", range(layout.tp)),
        "dp": _ranks_along(placement, place, "dp_rank", range(layout.dp)),
        "dp_slice": tuple(sorted(dp_slice)),
        "mesh": tuple(sorted(placement.ranks)),
        "tied": _ranks_along(placement, place, "pp_rank", {0, layout.pp - 1}),
    }


def _ranks_along(placement: Placement, place: Coordinate, axis: str, indices: Iterable[int]) -> Ranks:
    """Return the global ranks at some indices of an axis, elsewhere at `place`, in ascending order."""
    ranks: list[int] = []
    coordinate = place._asdict()
    for index in indices:
        coordinate[axis] = index
        ranks.append(placement.rank(**coordinate))
    return tuple(sorted(ranks))


def _pipeline(placement: Placement, place: Coordinate) -> Ranks:
    """Return the ranks that a micro-batch passes on its way through the stages."""
    stages = range(placement.layout.pp)
    return _ranks_along(placement, place, "pp_rank", stages)


def _pipelines(placement: Placement) -> set[Ranks]:
    """Return the ranks of each pipeline; none if there is one stage."""
    places = [placement.coordinate(rank) for rank in placement.ranks]
    return _of_several(_pipeline(placement, place) for place in places)


def _groups_of(
    placement: Placement,
    rank: int,
    made: Mapping[Ranks, ProcessGroup],
    wires: Mapping[Ranks, Mapping[str, ProcessGroup]],
) -> Groups:
    place = placement.coordinate(rank)
    sets = _sets_around(placement, place)
    is_end = place.pp_rank in (0, placement.layout.pp - 1)
    pipeline = _pipeline(placement, place)
    return Groups(
        placement,
        rank,
        tp=made.get(sets["tp"]),
        dp=made.get(sets["dp"]),
        dp_slice=made.get(sets["dp_slice"]),
        tied=made.get(sets["tied"]) if is_end else None,
        mesh=made.get(sets["mesh"]),
        wires=wires.get(pipeline, {}),
    )
