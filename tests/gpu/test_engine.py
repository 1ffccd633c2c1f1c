"""The engine on one CUDA device, by the checks that the CPU passes."""

from __future__ import annotations

import pytest
import torch

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.parallel.groups import local_groups
from tests.engines.test_engine import check_engine
from tests.models.families import ONE_EACH, reference_model, tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("row", ONE_EACH)
def test_engine_matches_transformers(row, tmp_path):
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    model = tiny_model(tmp_path, row)
    check_engine(model, local_groups(placement), reference_model(model), device="cuda")
