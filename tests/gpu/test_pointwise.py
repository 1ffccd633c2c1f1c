"""The CUDA kernels of gated units and rotary embeddings against the CPU's."""

from __future__ import annotations

import pytest
import torch

from realrl.ops import kernels
from realrl.ops.gated import gated
from realrl.ops.rotary import rotate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_cuda_kernel_is_built():
    """Without it the twin would be compared."""
    assert kernels.for_device(torch.device("cuda")) is not None


def on_both(function, x, *rest, dy):
    results = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device, copy=True).requires_grad_()
        y = function(leaf, *(r.to(device) if torch.is_tensor(r) else r for r in rest))
        y.backward(dy.to(device))
        results.append((y.detach().cpu(), leaf.grad.cpu()))
    return zip(*results)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("width", [1, 100, 104, 3072])
def test_gated(activation, dtype, tolerance, width):
    """Rows that begin at multiples of a vector and rows that do not."""
    gate_up, dy = torch.randn(33, 2 * width).to(dtype), torch.randn(33, width).to(dtype)
    for cpu, cuda in on_both(gated, gate_up, activation, dy=dy):
        torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("size", [2, 36, 64, 128])
def test_rotate(dtype, tolerance, size):
    qkv, dy = torch.randn(2, 33, 5, size).to(dtype)
    angles = torch.randn(33, size // 2)
    for cpu, cuda in on_both(rotate, qkv, angles.cos(), angles.sin(), 4, dy=dy):
        torch.testing.assert_close(cuda, cpu, rtol=tolerance, atol=tolerance)
