"""What the sharded optimizer refuses, and its norm; its other numbers are checked with the engine's."""

from __future__ import annotations

import pytest
import torch

from realrl.api.config import OptimizerConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.parallel.flat import FlatTensors
from realrl.parallel.groups import local_groups
from realrl.parallel.optimizer import ShardedAdamW, _sum_of_squares


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_changes_nothing(bad):
    """A run must not go on with weights that are lost."""
    weights = FlatTensors({"w": (2, 2)}, torch.float32, "cpu")
    weights.buffer.copy_(torch.arange(4.0))
    groups = local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    optimizer = ShardedAdamW(weights, [(0, 4, 1)], groups, OptimizerConfig())
    optimizer.gradients[1] = bad
    with pytest.raises(FloatingPointError, match="the gradient's norm is (nan|inf): no update was made"):
        optimizer.step(1e-3)
    assert torch.equal(weights.buffer, torch.arange(4.0))


@pytest.mark.parametrize("size", [0, 1, 255, 256, 1000, 3_000_001])
@pytest.mark.parametrize("make", [torch.randn, lambda n: torch.full((n,), 0.01)], ids=["random", "constant"])
def test_the_norm_is_exact_for_many_elements(size, make):
    """Also where every addition would be rounded the same way."""
    x = make(size)
    torch.testing.assert_close(_sum_of_squares(x), x.double().square().sum(), rtol=1e-6, atol=0)
