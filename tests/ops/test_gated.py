"""Gated units against their formula in float64, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from realrl.ops.gated import gated, gated_reference

ACTIVATIONS = {"silu": "silu", "gelu_tanh": "gelu_new"}
"""Ours and transformers' names."""


def expected(gate_up: Tensor, activation: str) -> Tensor:
    gate, up = gate_up.double().chunk(2, dim=-1)
    return ACT2FN[ACTIVATIONS[activation]](gate) * up


@pytest.mark.parametrize("implementation", [gated, gated_reference])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)])
@pytest.mark.parametrize("shape", [(3, 32), (7, 2), (5, 66), (200, 258), (0, 8)])
def test_it_is_the_formula(implementation, activation, dtype, tolerance, shape):
    """Values and gradients, rounded once, for widths that are whole vectors or not."""
    generator = torch.Generator().manual_seed(0)
    gate_up = (4 * torch.randn(shape, generator=generator)).to(dtype)
    dy = torch.randn(shape[0], shape[1] // 2, generator=generator).to(dtype)
    mine, theirs = gate_up.clone().requires_grad_(), gate_up.double().requires_grad_()
    found, wanted = implementation(mine, activation), expected(theirs, activation)
    found.backward(dy)
    wanted.backward(dy.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=1e-5)
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_extremes(activation):
    """Far gates are on or off, and a NaN does not vanish."""
    gate = torch.tensor([-1e4, -100.0, -89.0, -50.0, 0.0, 50.0, 89.0, 1e4, torch.nan])
    gate_up = torch.stack((gate, torch.ones(9)), dim=-1).repeat_interleave(16, dim=-1).requires_grad_()
    y = gated(gate_up, activation)
    torch.testing.assert_close(y[:, 0], ACT2FN[ACTIVATIONS[activation]](gate), equal_nan=True)
    y[:8].sum().backward()
    assert gate_up.grad[:8].isfinite().all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_gradients_it_is_the_same(activation):
    gate_up = torch.randn(50, 1000).bfloat16()
    with torch.no_grad():
        alone = gated(gate_up, activation)
    assert torch.equal(alone, gated(gate_up.requires_grad_(), activation))
    assert torch.equal(alone[3:5], gated(gate_up[3:5], activation))


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="as many gates as ups, got 3 columns"):
        gated(torch.zeros(2, 3), "silu")
