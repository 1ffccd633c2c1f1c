"""Transfers between real processes: every wire, bit for bit, and what is done about bytes that change."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.plan import TransferPlan, plan
from realrl.layouts.topology import Topology
from realrl.realloc import stream_endpoint
from realrl.realloc.transfer import Transfer, TransferSettings
from realrl.realloc.transfer_failure import TransferFailed
from tests.layouts.painting import numbered, paint, random_layout
from tests.world import run_world

SHAPES = {"w": (11, 7), "b": (13,), "ids": (9,), "mask": (5, 6), "step": (), "conv": (3, 4, 5), "z": (4, 2)}
DTYPES = {
    "w": torch.bfloat16,
    "b": torch.float32,
    "ids": torch.int64,
    "mask": torch.bool,
    "step": torch.float64,
    "conv": torch.uint8,
    "z": torch.complex128,
}
NUM_RANKS = 4
STAGING_BYTES = [1 << 14, 1 << 16, 1 << 20]
NUM_BITS = 1 + sum(int(np.prod(shape)) for shape in SHAPES.values())
BITS = torch.randint(0, 256, (NUM_BITS, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def topology(num_nodes: int, shared_memory: bool) -> Topology:
    nodes = {rank: rank * num_nodes // NUM_RANKS for rank in range(NUM_RANKS)}
    return Topology(nodes=nodes, shared_memory=shared_memory, latency_s=0.0)


def local_tensors(layout: Layout, rank: int, *, filled: bool) -> dict[str, torch.Tensor]:
    """A rank's tensors with random bits, NaNs among them, in boxes and padding; unfilled, all is padding."""
    tensor_of = {shard.local: shard.box.tensor for shard in layout.shards(rank)}
    painted = paint(layout, numbered(SHAPES), 0).get(rank, {})
    tensors = {}
    for local, numbers in painted.items():
        dtype = DTYPES[tensor_of[local]]
        bits = BITS[torch.from_numpy(np.asarray(numbers if filled else numbers * 0))][..., : dtype.itemsize]
        bits = bits & 1 if dtype is torch.bool else bits
        tensors[local] = bits.clone(memory_format=torch.contiguous_format).view(dtype).squeeze(-1)
    return tensors


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    """The tensors that differ in any bit."""
    return [
        k
        for k in a
        if not torch.equal(a[k].reshape(-1).view(torch.uint8), b[k].reshape(-1).view(torch.uint8))
    ]


def random_pair(seed: int) -> tuple[Layout, Layout]:
    rng = random.Random(seed)
    ranks = range(NUM_RANKS)
    return tuple(random_layout(rng, SHAPES, rng.sample(ranks, rng.randint(1, NUM_RANKS))) for _ in range(2))


def exchange_random_layouts(rank: int, num_nodes: int, shared_memory: bool) -> None:
    for seed in range(40):
        source, destination = random_pair(seed)
        found = plan(source, destination, topology(num_nodes, shared_memory))
        if rank not in found.ranks:
            continue
        settings = TransferSettings(staging_bytes=random.Random(seed).choice(STAGING_BYTES))
        transfer = Transfer(found, rank=rank, settings=settings)
        held = local_tensors(source, rank, filled=True)
        for version in range(2):
            target = local_tensors(destination, rank, filled=False)
            transfer.run(held, target, version=version)
            assert not differing(target, local_tensors(destination, rank, filled=True)), f"seed {seed}"
            assert not differing(held, local_tensors(source, rank, filled=True)), f"seed {seed}: changed"


@pytest.mark.parametrize("num_nodes", [1, 2, 4])
@pytest.mark.parametrize("shared_memory", [False, True], ids=["sent", "shared"])
def test_any_layout_becomes_any_other_bit_for_bit(num_nodes, shared_memory):
    """Twice in a row; every dtype, replicas, fused and padded locals, idle ranks, relays, tiny messages."""
    run_world(exchange_random_layouts, NUM_RANKS, num_nodes, shared_memory)


def exchange_with_one_stream_dropped(rank: int) -> None:
    source, destination = (Layout.of((Shard(r, Box("b", (0,), (13,)), "b", (0,)),)) for r in (0, 1))
    found = plan(source, destination)
    faulty = TransferPlan(found.streams[1:], found.kept, found.topology)
    target = local_tensors(destination, rank, filled=False)
    Transfer(faulty, rank=rank).run(local_tensors(source, rank, filled=True), target)
    assert not differing(target, local_tensors(destination, rank, filled=True))


def test_a_dropped_stream_is_noticed():
    """The comparison of the test above fails when a plan leaves something out."""
    with pytest.raises(Exception, match="AssertionError"):
        run_world(exchange_with_one_stream_dropped, 2)


def quarters(ranks: range, *, whole: bool, name: str = "w", size: int = 4096) -> Layout:
    """A weight cut by columns, or whole on every rank."""
    step = size // len(ranks)
    return Layout.of(
        Shard(
            r, Box(name, (0, 0 if whole else i * step), (64, size if whole else (i + 1) * step)), name, (0, 0)
        )
        for i, r in enumerate(ranks)
    )


def blend_and_cast(rank: int, shared_memory: bool) -> None:
    full = torch.randn(64, 4096, generator=torch.Generator().manual_seed(1))
    before = torch.randn(64, 4096, generator=torch.Generator().manual_seed(2))
    found = plan(quarters(range(4), whole=False), quarters(range(4), whole=True), topology(1, shared_memory))
    held = full[:, rank * 1024 : (rank + 1) * 1024].contiguous()
    for held_dtype, wanted_dtype in [
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
    ]:
        transfer = Transfer(
            found, rank=rank, wire_dtype=torch.bfloat16 if held_dtype != wanted_dtype else None
        )
        target = {"w": before.to(wanted_dtype, copy=True)}
        transfer.run({"w": held.to(held_dtype)}, target)
        assert torch.equal(target["w"], full.to(held_dtype).to(wanted_dtype))
        target = {"w": before.to(wanted_dtype, copy=True)}
        transfer.run({"w": held.to(held_dtype)}, target, eta=0.25)
        arrived = full.to(held_dtype).to(wanted_dtype).float()
        expected = 0.25 * arrived + 0.75 * before.to(wanted_dtype).float()
        torch.testing.assert_close(target["w"], expected.to(wanted_dtype), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("shared_memory", [False, True], ids=["sent", "shared"])
def test_weights_are_cast_and_blended_on_the_way(shared_memory):
    """float32 masters to a bf16 replica, back, and a moving average: what is kept like what is sent."""
    run_world(blend_and_cast, 4, shared_memory)


def corrupt(rank: int, shared_memory: bool, folder: Path) -> None:
    pack = stream_endpoint.pack

    def flipping(boxes, buffer, checksum):
        pack(boxes, buffer, checksum)
        # The manifest has no checksum, and stays as it is.
        if rank == 0 and num_packed[0] == 0:
            buffer[-3] ^= 4
        num_packed[0] += 1

    num_packed = [0]
    stream_endpoint.pack = flipping
    found = plan(
        quarters(range(2), whole=False, name="model.norm.weight"),
        quarters(range(2), whole=True, name="model.norm.weight"),
        topology(1, shared_memory),
    )
    tensors = {"model.norm.weight": torch.rand(64, 2048)}, {"model.norm.weight": torch.zeros(64, 4096)}
    try:
        Transfer(found, rank=rank).run(*tensors, version=7)
    except TransferFailed as error:
        (folder / str(rank)).write_text(str(error))
    Transfer(found, rank=rank, settings=TransferSettings(checksum=False)).run(*tensors, version=7)


@pytest.mark.parametrize("shared_memory", [False, True], ids=["sent", "shared"])
def test_one_flipped_bit_stops_the_transfer(shared_memory, tmp_path):
    """It says which tensor, from which rank to which, of which version. Unchecked, it goes through."""
    run_world(corrupt, 2, shared_memory, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    said = (tmp_path / "1").read_text()
    assert said.startswith(
        "the checksum of message 0 from rank 0 to rank 1 (model.norm.weight; version 7) is "
    )


def disagree(rank: int, shared_memory: bool, folder: Path) -> None:
    found = plan(quarters(range(2), whole=False), quarters(range(2), whole=True), topology(1, shared_memory))
    try:
        Transfer(found, rank=rank).run(
            {"w": torch.rand(64, 2048)}, {"w": torch.zeros(64, 4096)}, version=rank + 5
        )
    except TransferFailed as error:
        (folder / str(rank)).write_text(str(error))


@pytest.mark.parametrize("shared_memory", [False, True], ids=["sent", "shared"])
def test_another_version_than_the_one_due_is_refused(shared_memory, tmp_path):
    """At both ends, each of which has its own idea of what is due."""
    run_world(disagree, 2, shared_memory, tmp_path)
    assert (tmp_path / "1").read_text() == (
        "message 0 from rank 0 to rank 1 (w) is of version 5, not of version 6, which is due"
    )
    assert "is of version 6, not of version 5" in (tmp_path / "0").read_text()


def wait_for_nobody(rank: int, folder: Path) -> None:
    found = plan(quarters(range(2), whole=False), quarters(range(2), whole=True), topology(1, True))
    transfer = Transfer(found, rank=rank, settings=TransferSettings(timeout_s=1.0))
    tensors = {"w": torch.rand(64, 2048)}, {"w": torch.zeros(64, 4096)}
    transfer.run(*tensors)
    if rank == 0:
        with pytest.raises(TransferFailed) as caught:
            transfer.run(*tensors)
        (folder / "0").write_text(str(caught.value))
        with pytest.raises(TransferFailed, match="an earlier run .* make another"):
            transfer.run(*tensors)
    dist.barrier()


def test_a_silent_peer_is_named_at_the_deadline(tmp_path):
    """Rank 1 stays away from the second run."""
    run_world(wait_for_nobody, 2, tmp_path)
    assert (tmp_path / "0").read_text() == (
        "rank 1 has not put in a message of stream 1, from rank 1 to [0] within 1 s"
    )


def count_what_is_left(rank: int) -> None:
    found = plan(quarters(range(2), whole=False), quarters(range(2), whole=True), topology(1, True))
    tensors = {"w": torch.rand(64, 2048)}, {"w": torch.zeros(64, 4096)}
    Transfer(found, rank=rank).run(*tensors)
    dist.barrier()
    before = open_files(), mappings()
    for _ in range(20):
        Transfer(found, rank=rank).run(*tensors)
    dist.barrier()
    assert open_files() == before[0]
    assert mappings() <= before[1]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    """Of memory that processes share."""
    return Path("/proc/self/maps").read_text().count("memfd:realrl")


def test_shared_memory_is_given_back():
    """Transfers that are not kept leave neither open files nor mappings."""
    run_world(count_what_is_left, 2)


def test_a_plan_within_one_process_needs_no_process_group():
    """Alone, a rank rearranges its own tensors; parameters that require gradients too."""
    source = Layout.of((Shard(0, Box("w", (0, 0), (4, 2)), "w", (0, 0)),))
    halves = [Shard(0, Box("w", (0, c), (4, c + 1)), f"column{c}", (0, 0)) for c in (0, 1)]
    weight = torch.randn(4, 2)
    target = {f"column{c}": torch.nn.Parameter(torch.zeros(4, 1)) for c in (0, 1)}
    Transfer(plan(source, Layout.of(halves)), rank=0).run({"w": weight}, target)
    assert torch.equal(torch.cat(list(target.values()), dim=1), weight)


def test_the_dtypes_of_a_kept_tensor_must_agree():
    """A cast that was not asked for is refused."""
    layout = Layout.of((Shard(0, Box("w", (0,), (4,)), "w", (0,)),))
    with pytest.raises(AssertionError, match="w is torch.float32 here and torch.bfloat16"):
        tensors = {"w": torch.zeros(4)}, {"w": torch.zeros(4, dtype=torch.bfloat16)}
        Transfer(plan(layout, layout), rank=0).run(*tensors)
