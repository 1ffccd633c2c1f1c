"""The CUDA kernels on logits, run on the CPU, against float64."""

from __future__ import annotations

import pytest
import torch

from realrl.ops import logits
from realrl.ops.logits import LogitsMap, finish, gradient_
from tests.ops.test_logits import DTYPES, example, oracle
from tests.rehearsal.rehearse import displaced, in_every_order

SHAPES = [(0, 8, 8), (1, 1, 1), (3, 16, 16), (2, 20, 17), (2, 24, 3), (2, 2080, 2049), (2, 5000, 5000)]
"""Rows, columns, and how many of these are real."""


def values_and_gradient(x, labels, mapping, of_logprobs, of_entropy, offset=0):
    x = displaced(x, offset)
    statistics = logits.statistics(x, labels, mapping)
    found = finish(statistics[None])
    return *found, gradient_(x, labels, mapping, found, of_logprobs, of_entropy)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width", "num_real"), SHAPES)
@pytest.mark.parametrize(("temperature", "softcap"), [(0.7, None), (1.3, 30.0)])
def test_values_and_gradients_are_the_formulas(library, dtype, rows, width, num_real, temperature, softcap):
    """Rows that begin at multiples of a vector and rows that do not, with and without padding and cap."""
    check(
        library,
        dtype,
        (rows, width),
        LogitsMap(first=7, num_real=num_real, temperature=temperature, softcap=softcap),
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_of_whole_vectors_at_an_odd_address(library, dtype):
    check(library, dtype, (3, 48), LogitsMap(first=0, num_real=47), offset=1)


def check(library, dtype, shape, mapping, offset=0):
    x, labels = example(*shape, mapping, dtype)
    of_logprobs, of_entropy = torch.randn(2, shape[0], generator=torch.Generator().manual_seed(1))
    inputs = x, labels, mapping, of_logprobs, of_entropy, offset
    logprobs, entropy, _, gradient = in_every_order(library, values_and_gradient, *inputs)
    leaf = x.double().requires_grad_()
    wanted = oracle(leaf, labels, mapping)
    torch.testing.assert_close(logprobs.double(), wanted[0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(entropy.double(), wanted[1], rtol=1e-6, atol=1e-5)

    (wanted[0] @ of_logprobs.double() + wanted[1] @ of_entropy.double()).backward()
    exact = leaf.grad.to(dtype).double()
    rtol = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(gradient.double(), exact, rtol=rtol, atol=1e-6)
    assert not gradient[:, mapping.num_real :].any()


def test_a_label_elsewhere_and_no_real_column(library):
    """As on the ranks of a vocabulary that is spread."""
    x, labels = torch.randn(3, 16), torch.tensor([5, 99, 20])
    for num_real in (0, 10):
        mapping = LogitsMap(first=16, num_real=num_real)
        (found,) = in_every_order(library, lambda x, y, m: [logits.statistics(x, y, m)], x, labels, mapping)
        torch.testing.assert_close(found, logits.statistics_reference(x, labels, mapping))


def test_extremes(library):
    """A NaN does not go unnoticed, wherever it is; infinite logits are as if they were not there."""
    mapping = LogitsMap(first=0, num_real=1000)
    x = torch.zeros(4, 1000)
    x[0, 0], x[1, 999], x[2, 0], x[3] = torch.nan, torch.nan, -torch.inf, torch.linspace(-1e5, 1e5, 1000)
    (found,) = in_every_order(
        library, lambda x, y, m: [logits.statistics(x, y, m)], x, torch.tensor([1, 1, 1, 999]), mapping
    )
    logprobs = finish(found[None]).logprobs
    assert logprobs[:2].isnan().all() and logprobs[2].isfinite() and logprobs[3] == 0
