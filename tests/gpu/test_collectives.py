"""NCCL in a world of one rank: the calls that the engine makes, each to itself."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from tests.world import run_world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_every_call_of_the_engine_in_a_world_of_one():
    run_world(_call, 1)


def _call(rank: int) -> None:
    torch.cuda.set_device(0)
    group = dist.new_group([0], backend="nccl")
    ones = torch.ones(8, device="cuda")
    dist.all_reduce(ones, group=group)
    dist.broadcast(ones, src=0, group=group)
    whole, share = torch.empty(8, device="cuda"), torch.empty(8, device="cuda")
    dist.all_gather_into_tensor(whole, ones, group=group, async_op=True).wait()
    dist.reduce_scatter_tensor(share, whole, group=group, async_op=True).wait()
    received = torch.empty(8, device="cuda")
    pair = [dist.P2POp(dist.isend, share, 0, group), dist.P2POp(dist.irecv, received, 0, group)]
    for work in dist.batch_isend_irecv(pair):
        work.wait()
    assert torch.equal(received.cpu(), torch.ones(8))
