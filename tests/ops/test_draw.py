"""Drawn tokens against a plain loop over the cumulative distribution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops.draw import draw_tokens, draw_tokens_reference


def looped(logits: list[float], uniform: float, temperature: float) -> tuple[int, float]:
    """The token, and how near the number is to another one's share."""
    weights = torch.tensor(logits, dtype=torch.float64).div(temperature).softmax(0).tolist()
    total, margin, token = 0.0, 1.0, None
    for i, weight in enumerate(weights):
        total += weight
        margin = min(margin, abs(total - uniform))
        if token is None and total > uniform:
            token = i
    return token, margin


@settings(max_examples=150, deadline=None)
@given(
    width=st.sampled_from([1, 2, 15, 16, 17, 100, 1023, 1024, 1025, 5000]),
    seed=st.integers(0, 1 << 30),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    barred=st.integers(0, 3),
)
@pytest.mark.parametrize("implementation", [draw_tokens, draw_tokens_reference])
def test_the_token_is_where_the_sum_passes_the_number(implementation, width, seed, temperature, barred):
    """Unless the number is within rounding of a bound; barred tokens weigh nothing."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(3, width, generator=generator)
    logits[:, torch.randperm(width, generator=generator)[: min(barred, width - 1)]] = float("-inf")
    uniforms = torch.rand(3, generator=generator, dtype=torch.float64)
    found = implementation(logits, uniforms, temperature).tolist()
    for row, uniform, token in zip(logits.tolist(), uniforms.tolist(), found):
        expected, margin = looped(row, uniform, temperature)
        assert token == expected or margin < 1e-5


@pytest.mark.parametrize("implementation", [draw_tokens, draw_tokens_reference])
@pytest.mark.parametrize("width", [3, 40, 3000])
def test_the_ends_of_the_range(implementation, width):
    """0 is the first token that may be drawn; just below 1 the last one."""
    logits = torch.zeros(2, width)
    logits[:, 0] = logits[:, -1] = float("-inf")
    numbers = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    assert implementation(logits, numbers, 1.0).tolist() == [1, width - 2]


@pytest.mark.parametrize("width", [5, 40, 5000])
def test_bfloat16_is_drawn_from_as_it_is(width):
    """The same tokens as from the same numbers in float32."""
    logits = (4 * torch.randn(20, width, generator=torch.Generator().manual_seed(width))).bfloat16()
    numbers = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(draw_tokens(logits, numbers, 0.7), draw_tokens(logits.float(), numbers, 0.7))


def test_a_row_does_not_depend_on_the_others():
    logits, numbers = torch.randn(40, 7000), torch.rand(40, dtype=torch.float64)
    whole = draw_tokens(logits, numbers, 0.9)
    assert torch.equal(whole[7:9], draw_tokens(logits[7:9], numbers[7:9], 0.9))


def test_other_types_are_refused():
    with pytest.raises(ValueError, match="expected float32 or bfloat16, and float64, got torch.float16"):
        draw_tokens(torch.zeros(1, 4).half(), torch.zeros(1, dtype=torch.float64), 1.0)
