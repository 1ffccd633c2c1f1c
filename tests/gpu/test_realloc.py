"""Reallocation on CUDA devices: kept boxes and offload on one, NCCL streams between several."""

from __future__ import annotations

import random

import pytest
import torch
import torch.distributed as dist

from realrl.engines.host_copies import HostCopy
from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.plan import plan
from realrl.layouts.topology import Topology
from realrl.ops.box_copies import Boxes, checksum, pack
from realrl.realloc.transfer import Transfer, TransferSettings
from tests.realloc.test_transfer import STAGING_BYTES, differing, local_tensors
from tests.realloc.test_transfer import random_pair as any_pair
from tests.world import run_world

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
needs_several = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device: NCCL needs two")


@pytest.mark.parametrize("eta", [1.0, 0.25])
def test_a_rank_rearranges_and_casts_its_own_tensors(eta):
    """float32 to bf16 column by column, on the device as on the host."""
    source = Layout.of((Shard(0, Box("w", (0, 0), (64, 48)), "w", (0, 0)),))
    columns = [Shard(0, Box("w", (0, c), (64, c + 16)), f"column{c}", (0, 0)) for c in (0, 16, 32)]
    found = plan(source, Layout.of(columns))
    weight = torch.randn(64, 48)
    results = []
    for device in ("cpu", "cuda"):
        target = {f"column{c}": torch.ones(64, 16, dtype=torch.bfloat16, device=device) for c in (0, 16, 32)}
        transfer = Transfer(found, rank=0, wire_dtype=torch.bfloat16)
        transfer.run({"w": weight.to(device)}, target, eta=eta)
        results.append(torch.cat([part.cpu() for part in target.values()], dim=1))
    assert torch.equal(*results)


@pytest.mark.parametrize("num_bytes", [64, 1 << 20, (1 << 22) + 64])
def test_a_message_that_is_not_packed_has_the_hosts_checksum(num_bytes):
    """What goes straight from a tensor to the wire is only added up."""
    message = torch.randint(0, 256, (num_bytes,), dtype=torch.uint8)
    found = torch.zeros(1, dtype=torch.int64, device="cuda")
    pack(Boxes([], [], []), message.cuda(), found)
    assert found.item() == checksum(message)


def test_offloaded_weights_come_back_while_the_device_computes():
    """Copies run beside the current stream: what was queued before is in them, later writes are not."""
    tensor = torch.zeros(1 << 22, device="cuda")
    torch.cuda._sleep(10_000_000)
    tensor.fill_(3.0)
    host = HostCopy(tensor)
    del tensor
    torch.cuda._sleep(10_000_000)
    arrival = host.bring_back()
    assert (arrival.wait() == 3.0).all()
    memory = torch.cuda.memory_allocated()
    del arrival
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= memory - (4 << 22)


def exchange_on_devices(rank: int) -> None:
    torch.cuda.set_device(rank)
    dist.all_reduce(torch.zeros(1, device="cuda"))
    nodes = {0: "a", 1: "b"}
    for seed in range(20):
        source, destination = two_rank_pair(seed)
        found = plan(source, destination, Topology(nodes=nodes if seed % 2 else {}, latency_s=0.0))
        if rank not in found.ranks:
            continue
        held = {k: v.cuda() for k, v in local_tensors(source, rank, filled=True).items()}
        target = {k: v.cuda() for k, v in local_tensors(destination, rank, filled=False).items()}
        settings = TransferSettings(staging_bytes=random.Random(seed).choice(STAGING_BYTES))
        Transfer(found, rank=rank, settings=settings).run(held, target)
        arrived = {name: tensor.cpu() for name, tensor in target.items()}
        assert not differing(arrived, local_tensors(destination, rank, filled=True)), f"seed {seed}"


def two_rank_pair(seed: int) -> tuple[Layout, Layout]:
    """A random pair, folded onto two ranks."""
    return tuple(
        Layout.of(
            Shard(shard.rank % 2, shard.box, f"{shard.rank}/{shard.local}", shard.offset)
            for rank in layout.ranks
            for shard in layout.shards(rank)
        )
        for layout in any_pair(seed)
    )


@needs_several
def test_any_layout_becomes_any_other_over_nccl():
    """Bit for bit, every dtype."""
    run_world(exchange_on_devices, 2, backend="cpu:gloo,cuda:nccl")
