"""Drawing on one CUDA device against the CPU's kernel."""

from __future__ import annotations

import pytest
import torch

from realrl.ops.draw import draw_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 5), (7, 1001), (128, 151_936)])
def test_tokens_are_those_of_the_cpu(dtype, rows, width):
    """But for numbers within rounding of a boundary."""
    check((4 * torch.randn(rows, width, generator=torch.Generator().manual_seed(width))).to(dtype), 1.0)


@pytest.mark.parametrize(("rows", "width"), [(1, 5), (7, 1001), (128, 151_936)])
def test_a_nucleus_is_that_of_the_cpu(rows, width):
    """In float32: of equal logits, the CPU's nucleus may have others than the first."""
    check(4 * torch.randn(rows, width, generator=torch.Generator().manual_seed(width)), 0.9)


def check(logits: torch.Tensor, top_p: float) -> None:
    uniforms = torch.rand(len(logits), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = draw_tokens(logits.cuda(), uniforms.cuda(), 0.8, top_p).cpu()
    assert (found != draw_tokens(logits, uniforms, 0.8, top_p)).sum() <= len(logits) // 50


def test_nothing_waits_for_the_device():
    """A graph can hold it."""
    logits, uniforms = torch.randn(4, 1000, device="cuda"), torch.rand(4, dtype=torch.float64, device="cuda")
    expected = draw_tokens(logits, uniforms, 0.8, 0.9)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = draw_tokens(logits, uniforms, 0.8, 0.9)
    graph.replay()
    assert torch.equal(found, expected)
