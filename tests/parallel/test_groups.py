"""Process groups give ranks the places that the layout gives them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.parallel.groups import _sets_around, create_groups
from tests.world import run_world

degrees = st.integers(1, 4)


@given(degrees, degrees, degrees, st.data())
def test_a_ranks_place_in_a_group_is_its_place_on_the_axis(pp, dp, tp, data):
    """Torch orders a group by global rank; vocabulary shards and optimizer shares count on the axis."""
    layout = ParallelLayout(pp=pp, dp=dp, tp=tp)
    ranks = data.draw(st.sets(st.integers(0, 99), min_size=layout.size, max_size=layout.size))
    placement = Placement(DeviceMesh(tuple(sorted(ranks))), layout)
    for rank in placement.ranks:
        place = placement.coordinate(rank)
        sets = _sets_around(placement, place)
        assert sets["tp"].index(rank) == place.tp_rank
        assert sets["dp"].index(rank) == place.dp_rank
        assert set(sets["dp_slice"]) == {r for r in ranks if placement.coordinate(r).dp_rank == place.dp_rank}


@pytest.mark.parametrize("ranks", [(), (1, 0), (2, 2), (-1, 0)])
def test_a_mesh_is_refused_whose_ranks_do_not_ascend(ranks):
    with pytest.raises(ValueError, match="distinct ranks from 0 up in ascending order"):
        DeviceMesh(ranks)


def _wait_in_vain(rank: int) -> None:
    placements = [
        Placement(DeviceMesh((0, 1)), layout) for layout in (ParallelLayout(tp=2), ParallelLayout(pp=2))
    ]
    groups = create_groups(placements, rank, timedelta(seconds=1))
    store = dist.distributed_c10d._get_default_store()
    if rank == 1:
        store.wait(["waited"], timedelta(seconds=8))
    else:
        waits = (
            lambda: dist.all_reduce(torch.zeros(1), group=groups[placements[0]].tp),
            lambda: dist.recv(torch.zeros(1), 1, group=groups[placements[1]].wires["hidden"]),
        )
        for wait in waits:
            with pytest.raises(RuntimeError, match="[Tt]imed out"):
                wait()
        store.set("waited", "")


def test_a_collective_has_the_deadline_that_its_run_gives():
    """Not torch's of half an hour, whatever the kind of group."""
    run_world(_wait_in_vain, 2)
