"""FlexAttention on a CUDA device, compiled for it, against float64 on the host."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from realrl.ops import flash, flex
from tests.gpu import test_attention as attention
from tests.gpu.test_attention import ALONE, SHARED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "case",
    [
        replace(SHARED, window=50),
        replace(SHARED, window=50, softcap=20.0, group=3),
        replace(ALONE, softcap=20.0, head_dim=80),
    ],
)
def test_what_flash_does_not_take_is_compiled(case, dtype, monkeypatch):
    """From the first token on, where else there must be some more."""
    monkeypatch.setattr(flex, "_LEAST_TOKENS", 1)
    qkv = case.qkv(dtype=dtype).cuda()
    assert flex.can_run(qkv) and not flash.can_run(qkv, case.segments, case.window, case.softcap)
    attention.test_values_and_gradients(case, dtype)
