"""Rotations against complex numbers in float64, and against transformers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from realrl.ops.rotary import rotate, rotate_reference

TOLERANCES = [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)]
SHAPES = [
    (5, 4, 64, 3),
    (3, 15, 64, 12),
    (2, 2, 2, 2),
    (7, 3, 36, 1),
    (700, 3, 80, 2),
    (0, 3, 8, 2),
    (2, 3, 8, 0),
]
"""Tokens, heads, head size, heads to rotate."""


def angles_of(tokens: int, size: int) -> Tensor:
    return torch.arange(tokens)[:, None] * 1e4 ** -torch.arange(0, 1, 2 / size, dtype=torch.float64)


def expected(qkv: Tensor, angles: Tensor, num_heads: int) -> Tensor:
    """A pair is a complex number, times e^(i angle)."""
    x, half = qkv.double(), qkv.shape[-1] // 2
    turned = (
        torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)[:, None]
    )
    return torch.cat((torch.cat((turned.real, turned.imag), dim=-1)[:, :num_heads], x[:, num_heads:]), dim=1)


@pytest.mark.parametrize("implementation", [rotate, rotate_reference])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize(("tokens", "heads", "size", "num_heads"), SHAPES)
def test_it_is_the_formula(implementation, dtype, tolerance, tokens, heads, size, num_heads):
    """Values and gradients, rounded once, for halves that are whole vectors or not."""
    generator = torch.Generator().manual_seed(0)
    qkv, dy = torch.randn(2, tokens, heads, size, generator=generator).to(dtype)
    angles = angles_of(tokens, size)
    mine, theirs = qkv.clone().requires_grad_(), qkv.double().requires_grad_()
    found = implementation(mine, angles.cos().float(), angles.sin().float(), num_heads)
    wanted = expected(theirs, angles, num_heads)
    found.backward(dy)
    wanted.backward(dy.double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=tolerance, atol=2e-6)
    torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=tolerance, atol=2e-6)
    assert torch.equal(found[:, num_heads:], qkv[:, num_heads:])


def test_it_is_transformers():
    """Which lays the halves as we do."""
    qkv, angles = torch.randn(9, 5, 32), angles_of(9, 32).float()
    cos, sin = (torch.cat((x, x), dim=-1)[None] for x in (angles.cos(), angles.sin()))
    q, k = (x.transpose(0, 1)[None] for x in (qkv[:, :3], qkv[:, 3:]))
    wanted = torch.cat([x[0].transpose(0, 1) for x in apply_rotary_pos_emb(q, k, cos, sin)], dim=1)
    torch.testing.assert_close(rotate(qkv, angles.cos(), angles.sin(), 5), wanted)


@pytest.mark.parametrize(
    ("shape", "angles", "num_heads"),
    [((4, 2, 5), (4, 2), 1), ((4, 2, 6), (4, 2), 1), ((4, 2, 6), (3, 3), 1), ((4, 2, 6), (4, 3), 3)],
)
def test_what_does_not_fit_is_refused(shape, angles, num_heads):
    with pytest.raises(ValueError, match="rotate: "):
        rotate(torch.zeros(shape), torch.zeros(angles), torch.zeros(angles), num_heads)
