"""The CUDA kernels of gated units and rotary embeddings, run on the CPU, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from realrl.ops.gated import activate, gated
from realrl.ops.rotary import rotate
from tests.rehearsal.rehearse import displaced, in_every_order

TOLERANCES = [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)]


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return (2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def gated_oracle(gate_up: Tensor, activation: str) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return (F.silu(gate) if activation == "silu" else F.gelu(gate, approximate="tanh")) * up


def rotate_oracle(qkv: Tensor, angles: Tensor, num_heads: int) -> Tensor:
    """A pair is a complex number, times e^(i angle)."""
    half = qkv.shape[-1] // 2
    turns = torch.polar(torch.ones_like(angles), angles)[:, None]
    turned = torch.complex(qkv[..., :half], qkv[..., half:]) * turns
    pairs = torch.cat((turned.real, turned.imag), dim=-1)
    return torch.cat((pairs[:, :num_heads], qkv[:, num_heads:]), dim=1)


def value_and_gradient(function, x: Tensor, dy: Tensor, *rest, offset: int = 0) -> tuple[Tensor, Tensor]:
    leaf = displaced(x, offset).requires_grad_()
    y = function(leaf, *rest)
    y.backward(displaced(dy, offset))
    return y.detach(), leaf.grad


def close(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], tolerance: float) -> None:
    for mine, exact in zip(found, wanted):
        torch.testing.assert_close(mine.double(), exact, rtol=tolerance, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(0, 8), (3, 0), (1, 1), (5, 33), (7, 104), (3, 264)])
@pytest.mark.parametrize("offset", [0, 1])
def test_gated(library, activation, dtype, tolerance, rows, width, offset):
    """Rows that begin at multiples of a vector and rows that do not; several blocks, the last not full."""
    gate_up, dy = random(rows, 2 * width, dtype=dtype), random(rows, width, dtype=dtype, seed=1)

    def run(gate_up, dy):
        return value_and_gradient(gated, gate_up, dy, activation, offset=offset)

    found = in_every_order(library, run, gate_up, dy)
    close(found, value_and_gradient(gated_oracle, gate_up.double(), dy.double(), activation), tolerance)


def test_an_activation_alone(library):
    """A gated unit whose ups are one, of a tensor with gaps."""
    x = random(5, 80, dtype=torch.float32)
    (found,) = in_every_order(library, lambda x: [activate(x[:, 3:70], "silu")], x)
    torch.testing.assert_close(found, F.silu(x[:, 3:70]))


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("tokens", "heads", "size", "num_heads"),
    [(0, 3, 8, 2), (2, 0, 8, 0), (1, 1, 2, 1), (5, 4, 64, 3), (3, 5, 36, 1), (7, 3, 16, 0), (40, 3, 80, 2)],
)
@pytest.mark.parametrize("offset", [0, 1])
def test_rotate(library, dtype, tolerance, tokens, heads, size, num_heads, offset):
    """Values and gradients, for halves that are whole vectors or not."""
    qkv, dy = (random(tokens, heads, size, dtype=dtype, seed=seed) for seed in (0, 1))
    angles = torch.arange(tokens)[:, None] * 1e4 ** -torch.arange(0, 1, 2 / size, dtype=torch.float64)

    def run(qkv, dy, cos, sin):
        return value_and_gradient(rotate, qkv, dy, cos, sin, num_heads, offset=offset)

    found = in_every_order(library, run, qkv, dy, angles.cos().float(), angles.sin().float())
    wanted = value_and_gradient(rotate_oracle, qkv.double(), dy.double(), angles, num_heads)
    close(found, wanted, tolerance)
    assert torch.equal(found[0][:, num_heads:], qkv[:, num_heads:])
