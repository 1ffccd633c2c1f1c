import random

import numpy as np
import pytest
import torch

from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.plan import TransferPlan, plan
from realrl.realloc.execute import execute
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
LEAST_STAGING = 16 * 2 * (NUM_RANKS - 1)
NUM_BITS = 1 + sum(int(np.prod(shape)) for shape in SHAPES.values())
BITS = torch.randint(0, 256, (NUM_BITS, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def local_tensors(layout: Layout, rank: int, *, filled: bool) -> dict[str, torch.Tensor]:
    """A rank's tensors with random bits, NaNs among them, in boxes and padding; unfilled, all is padding."""
    tensor_of = {shard.local: shard.box.tensor for shard in layout.by_rank.get(rank, ())}
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


def random_pair(seed: int) -> tuple[Layout, Layout, int]:
    rng = random.Random(seed)
    ranks = range(NUM_RANKS)
    source = random_layout(rng, SHAPES, rng.sample(ranks, rng.randint(1, NUM_RANKS)))
    destination = random_layout(rng, SHAPES, rng.sample(ranks, rng.randint(1, NUM_RANKS)))
    return source, destination, rng.choice([LEAST_STAGING, 200, 1000, 1 << 20])


def exchange_random_layouts(rank: int) -> None:
    for seed in range(60):
        source, destination, staging_bytes = random_pair(seed)
        found = plan(source, destination)
        held, target = (local_tensors(x, rank, filled=f) for x, f in ((source, True), (destination, False)))
        if rank in found.ranks:
            execute(found, held, target, rank=rank, staging_bytes=staging_bytes)
        assert not differing(target, local_tensors(destination, rank, filled=True)), f"seed {seed}"
        assert not differing(held, local_tensors(source, rank, filled=True)), f"seed {seed}: source changed"


def exchange_with_one_copy_dropped(rank: int) -> None:
    source, destination = (Layout((Shard(r, Box("b", (0,), (13,)), "b", (0,)),)) for r in (0, 1))
    faulty = TransferPlan(plan(source, destination).copies[1:])
    target = local_tensors(destination, rank, filled=False)
    execute(faulty, local_tensors(source, rank, filled=True), target, rank=rank)
    assert not differing(target, local_tensors(destination, rank, filled=True))


def test_any_layout_becomes_any_other_bit_for_bit():
    """Every dtype, replicas, fused and padded locals, idle ranks, and messages down to one element."""
    run_world(exchange_random_layouts, NUM_RANKS)


def test_a_dropped_copy_is_noticed():
    """The comparison of the test above fails when a plan leaves something out."""
    with pytest.raises(Exception, match="AssertionError"):
        run_world(exchange_with_one_copy_dropped, 2)


def test_a_plan_within_one_process_needs_no_process_group():
    """Alone, a rank rearranges its own tensors; parameters that require gradients too."""
    source = Layout((Shard(0, Box("w", (0, 0), (4, 2)), "w", (0, 0)),))
    halves = [Shard(0, Box("w", (0, c), (4, c + 1)), f"column{c}", (0, 0)) for c in (0, 1)]
    weight = torch.randn(4, 2)
    target = {f"column{c}": torch.nn.Parameter(torch.zeros(4, 1)) for c in (0, 1)}
    execute(plan(source, Layout(tuple(halves))), {"w": weight}, target, rank=0)
    assert torch.equal(torch.cat(list(target.values()), dim=1), weight)


def test_the_dtypes_of_a_kept_tensor_must_agree():
    """A cast would hide behind a copy; it is refused."""
    layout = Layout((Shard(0, Box("w", (0,), (4,)), "w", (0,)),))
    with pytest.raises(AssertionError, match="w is torch.float32 here and torch.bfloat16"):
        tensors = {"w": torch.zeros(4)}, {"w": torch.zeros(4, dtype=torch.bfloat16)}
        execute(plan(layout, layout), *tensors, rank=0)
