"""What the sharded optimizer refuses, and its norm; its other numbers are checked with the engine's."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from realrl.api.config import OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import local_groups
from realrl.parallel.optimizer import MAX_SKIPPED, ShardedAdamW, _sum_of_squares


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(bad, caplog):
    """The update is skipped, loudly, moments and all; after several in a row the run ends, and not before."""
    optimizer, twin = _optimizer(torch.float32, None), _optimizer(torch.float32, None)
    for each in (optimizer, twin):
        each.gradients.fill_(1.0)
        each.step(1e-3)
    for skips in (MAX_SKIPPED - 1, MAX_SKIPPED):
        for _ in range(skips - 1):
            optimizer.gradients[1] = bad
            assert not math.isfinite(optimizer.step(1e-3)) and "this update is skipped" in caplog.text
        for each in (optimizer, twin):
            each.gradients += 1.0
            each.step(1e-3)
        assert torch.equal(optimizer._weights.buffer, twin._weights.buffer)
    with pytest.raises(FloatingPointError, match=f"no finite number {MAX_SKIPPED} times in a row, at last"):
        for _ in range(MAX_SKIPPED):
            optimizer.gradients[1] = bad
            optimizer.step(1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["elsewhere", "put away", "both"])
def test_where_the_states_are_changes_no_bit(dtype, way):
    """Copied to their device and back, put away between steps, or both; with clipping, and a step before."""
    plain, other = (_optimizer(dtype, device) for device in (None, None if way == "put away" else "cpu"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        if way != "elsewhere":
            buffer, states = other._weights.buffer.clone(), other.put_away()
            assert bool(states) == (way == "put away")
            fresh = FlatTensors(SHAPES, dtype, "cpu", buffer=buffer)
            other.bring_back(fresh, {name: tensor.clone() for name, tensor in states.items()})
        gradient = torch.randn(len(plain.gradients), generator=generator)
        norms = []
        for optimizer in (plain, other):
            optimizer.gradients += gradient
            norms.append(optimizer.step(1e-2))
        assert norms[0] == norms[1] > 1
        assert torch.equal(plain._weights.buffer, other._weights.buffer)
        assert torch.equal(plain.master, other.master)


SHAPES = {"matrix": (5, 4), "vector": (7,)}


def _optimizer(dtype: torch.dtype, states_device: str | None) -> ShardedAdamW:
    weights = FlatTensors(SHAPES, dtype, "cpu")
    weights.buffer.copy_(torch.linspace(-1, 1, len(weights.buffer)))
    groups, config = local_groups(Placement(DeviceMesh((0,)), ParallelLayout())), OptimizerConfig()
    config = replace(config, weight_decay=0.1)
    copies = [(0, len(weights.buffer), 1)]
    return ShardedAdamW(weights, copies, groups, config, states_device=states_device)


def test_states_elsewhere_are_copies():
    """Nothing of them lies in the weights' memory, though on the CPU it could."""
    optimizer = _optimizer(torch.float32, "cpu")
    assert optimizer.master.data_ptr() != optimizer._share.data_ptr()
    optimizer.gradients.fill_(1.0)
    optimizer.step(1e-2)
    assert optimizer.states["exp_avg"].data_ptr() != optimizer.gradients.data_ptr()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1000, 3_000_001])
@pytest.mark.parametrize("make", [torch.randn, lambda n: torch.full((n,), 0.01)], ids=["random", "constant"])
def test_the_norm_is_exact_for_many_elements(size, make):
    """Also where every addition would be rounded the same way."""
    x = make(size)
    torch.testing.assert_close(_sum_of_squares(x), x.double().square().sum(), rtol=1e-6, atol=0)
