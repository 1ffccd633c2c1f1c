"""The CUDA kernel that draws tokens, run on the CPU, against a plain loop over each row's distribution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from realrl.ops.draw import draw_tokens
from tests.rehearsal.rehearse import displaced, in_every_order

DTYPES = [torch.float32, torch.bfloat16]
WIDTHS = [1, 8, 31, 1025, 8200]


def example(rows: int, width: int, dtype: torch.dtype, scale: float = 4.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(width)
    logits = (scale * torch.randn(rows, width, generator=generator)).to(dtype)
    return logits, torch.rand(rows, generator=generator, dtype=torch.float64)


def looped(logits: Tensor, uniform: float, temperature: float, top_p: float) -> tuple[int, float]:
    """The token, and how near its choice is to another one: of the number to a share, of a share to `top_p`.

    Of equal logits, the first columns are in the nucleus.
    """
    weights = logits.double().div(temperature).softmax(0).tolist()
    kept, mass, margin = {}, 0.0, 1.0
    for token in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        if top_p < 1:
            margin = min(margin, abs(mass - top_p))
        if top_p < 1 and mass >= top_p:
            break
        kept[token] = weights[token]
        mass += weights[token]
    below, found = 0.0, None
    for token in sorted(kept):
        below += kept[token] / mass
        margin = min(margin, abs(below - uniform))
        if found is None and below > uniform:
            found = token
    return found, margin


def drawn(
    logits: Tensor, uniforms: Tensor, temperature: float, top_p: float, offset: int = 0
) -> list[Tensor]:
    return [draw_tokens(displaced(logits, offset), uniforms, temperature, top_p)]


def check(
    library, logits: Tensor, uniforms: Tensor, temperature: float, top_p: float, offset: int = 0
) -> int:
    """The tokens are the loop's, or a boundary is within rounding; returns how many were compared."""
    (tokens,) = in_every_order(library, drawn, logits, uniforms, temperature, top_p, offset)
    num_compared = 0
    for row, uniform, token in zip(logits, uniforms.tolist(), tokens.tolist(), strict=True):
        expected, margin = looped(row, uniform, temperature, top_p)
        if margin > 1e-6:
            assert token == expected
            num_compared += 1
    return num_compared


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_token_is_where_the_sum_passes_the_number(library, dtype, width):
    """Rows of whole vectors and others, of fewer columns than warps and of several tiles a warp."""
    check(library, *example(3, width, dtype), 0.7, 1.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "scale"), [(5, 1.0), (264, 4.0), (1025, 0.1)])
@pytest.mark.parametrize("top_p", [0.1, 0.9])
def test_the_nucleus_is_the_likeliest_tokens(library, dtype, width, scale, top_p):
    """Small or most of the row; in bfloat16 its last logit is that of many tokens."""
    check(library, *example(2, width, dtype, scale), 0.8, top_p)


def test_most_rows_are_compared(library):
    """Else the tests above would show nothing."""
    logits, uniforms = example(4, 40, torch.bfloat16)
    assert check(library, logits, uniforms, 1.0, 0.9) == 4
    assert check(library, logits, uniforms, 1.0, 1.0) == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_whole_vectors_at_an_odd_address(library, dtype):
    check(library, *example(2, 48, dtype), 1.0, 1.0, offset=1)


@pytest.mark.parametrize("top_p", [1.0, 0.999])
@pytest.mark.parametrize("width", [3, 3000])
def test_the_ends_of_the_range(library, width, top_p):
    """0 is the first token that may be drawn; just below 1 the last one that is in the nucleus."""
    logits = torch.zeros(2, width)
    logits[:, 0] = logits[:, -1] = float("-inf")
    numbers = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    (tokens,) = in_every_order(library, drawn, logits, numbers, 1.0, top_p)
    num_kept = -(-(width - 2) * 999 // 1000) if top_p < 1 else width - 2
    assert tokens.tolist() == [1, num_kept]


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_what_is_no_number_gives_some_column(library, top_p):
    """The log-probabilities say that it is none; the token must not be out of range until then."""
    logits = torch.zeros(5, 100)
    logits[0], logits[1, 3], logits[2, 99] = -torch.inf, torch.nan, torch.inf
    logits[3], logits[4, 50:] = torch.nan, -torch.inf
    uniforms = torch.full((5,), 0.7, dtype=torch.float64)
    (tokens,) = in_every_order(library, drawn, logits, uniforms, 1.0, top_p)
    assert ((tokens >= 0) & (tokens < 100)).all()
    assert tokens[4] < 50


def test_the_cpus_kernel_draws_the_same(library):
    logits, uniforms = example(20, 1500, torch.float32)
    (tokens,) = in_every_order(library, drawn, logits, uniforms, 0.9, 1.0)
    assert torch.equal(tokens, draw_tokens(logits, uniforms, 0.9))


def test_a_row_does_not_depend_on_the_others(library):
    logits, uniforms = example(6, 200, torch.float32)
    (whole,) = in_every_order(library, drawn, logits, uniforms, 0.9, 1.0)
    (some,) = in_every_order(library, drawn, logits[3:5], uniforms[3:5], 0.9, 1.0)
    assert torch.equal(whole[3:5], some)
