"""The normalisation kernel against a formula in float64, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from realrl.ops.kernels import cpu_module
from realrl.ops.norm import rms_norm, rms_norm_reference

EPS = 1e-5


def expected(x: Tensor, weight: Tensor, offset: float) -> Tensor:
    x, weight = x.double(), weight.double()
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * (weight + offset)


@pytest.mark.parametrize("norm", [rms_norm, rms_norm_reference])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("shape", [(3, 5, 576), (1, 8), (200, 129), (0, 16)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_it_is_the_formula(norm, dtype, tolerance, shape, offset):
    """Values and gradients, for widths that are whole vectors or not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype)
    weight, dy = (torch.randn(s, generator=generator).to(dtype) for s in (shape[-1:], shape))
    found_inputs = [t.clone().requires_grad_() for t in (x, weight)]
    wanted_inputs = [t.double().requires_grad_() for t in (x, weight)]
    found, wanted = norm(*found_inputs, eps=EPS, offset=offset), expected(*wanted_inputs, offset)
    found.backward(dy)
    wanted.backward(dy.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=tolerance)
    for mine, theirs in zip(found_inputs, wanted_inputs):
        scale = float(theirs.grad.abs().max()) if theirs.grad.numel() else 1.0
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=tolerance, atol=tolerance * scale)


def test_a_row_does_not_depend_on_the_others():
    """Bit for bit, however many there are."""
    x, weight = torch.randn(100, 576).bfloat16(), torch.randn(576).bfloat16()
    whole = rms_norm(x, weight, eps=EPS)
    assert torch.equal(whole[7:9], rms_norm(x[7:9], weight, eps=EPS))


def test_the_kernel_is_built():
    assert cpu_module() is not None
