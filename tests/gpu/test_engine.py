"""The engine on one CUDA device, by the checks that the CPU passes."""

from __future__ import annotations

import pytest
import torch

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.ops.attention import packed_attention
from realrl.parallel.groups import local_groups
from tests.engines.test_engine import check_engine
from tests.tiny import tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_engine_matches_transformers(tmp_path):
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    check_engine(tiny_llama(tmp_path), local_groups(placement), device="cuda")


def test_varlen_attention_matches_the_cpus():
    """bfloat16 on the device against float32 on the host, grouped heads, ragged lengths."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(40, heads, 64, generator=generator) for heads in (4, 2, 2))
    cu_seqlens = torch.tensor([0, 1, 8, 40], dtype=torch.int32)
    found = packed_attention(*(x.cuda().bfloat16() for x in (q, k, v)), cu_seqlens)
    expected = packed_attention(*(x.bfloat16().float() for x in (q, k, v)), cu_seqlens)
    torch.testing.assert_close(found.float().cpu(), expected, rtol=2e-2, atol=2e-2)
