"""What calls take of a CUDA device's memory, by the checks that the CPU passes."""

from __future__ import annotations

import pytest
import torch

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.parallel.groups import local_groups
from tests.engines.measuring import KINDS, check_calls

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["activations", "vocabulary"])
def test_calls_take_what_is_predicted(name, kind):
    """In bfloat16: flash attention, which the prediction has in mind, has no float32."""
    groups = local_groups(Placement(DeviceMesh((0,)), ParallelLayout()))
    check_calls([(name, torch.bfloat16, kind)], groups, "cuda")
