"""Statistics of logits and their gradient, against log_softmax and autograd in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realrl.ops import kernels, logits
from realrl.ops.logits import LogitsMap, finish, gradient_

DTYPES = [torch.float32, torch.bfloat16]
IMPLEMENTATIONS = ["kernel", "twin"]


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request, monkeypatch):
    """Each test runs on the kernel and on its twin."""
    if request.param == "twin":
        monkeypatch.setattr(logits, "_kernel", lambda _: None)


def oracle(x: Tensor, labels: Tensor, mapping: LogitsMap) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy in float64 of the real columns of a whole vocabulary."""
    z = x.double()[:, : mapping.num_real]
    if mapping.softcap:
        z = mapping.softcap * (z / mapping.softcap).tanh()
    logp = (z / mapping.temperature).log_softmax(dim=-1)
    return logp.gather(-1, (labels - mapping.first)[:, None])[:, 0], -(logp.exp() * logp).sum(dim=-1)


def example(rows: int, width: int, mapping: LogitsMap, dtype: torch.dtype, scale: float = 3.0):
    generator = torch.Generator().manual_seed(rows * width)
    x = (scale * torch.randn(rows, width, generator=generator)).to(dtype)
    labels = torch.randint(mapping.first, mapping.first + mapping.num_real, (rows,), generator=generator)
    return x, labels


SHAPES = [(1, 1, 1), (3, 16, 16), (2, 20, 17), (5, 2048, 2048), (2, 2080, 2049), (3, 49152, 49152), (0, 8, 8)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width", "num_real"), SHAPES)
@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (0.7, None), (1.3, 30.0), (1.0, 5.0)])
def test_values_and_gradients_are_the_formulas(
    implementation, dtype, rows, width, num_real, temperature, softcap
):
    """Widths that are whole vectors and blocks or not, with and without padding, scale and cap."""
    mapping = LogitsMap(first=7, num_real=num_real, temperature=temperature, softcap=softcap)
    x, labels = example(rows, width, mapping, dtype)
    leaf = x.double().requires_grad_()
    wanted = oracle(leaf, labels, mapping)
    found = finish(logits.statistics(x, labels, mapping)[None])
    torch.testing.assert_close(found.logprobs.double(), wanted[0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.entropy.double(), wanted[1], rtol=1e-6, atol=1e-5)

    of_logprobs, of_entropy = torch.randn(2, rows)
    (wanted[0] @ of_logprobs.double() + wanted[1] @ of_entropy.double()).backward()
    exact = leaf.grad.to(dtype).double()
    gradient = gradient_(x, labels, mapping, found, of_logprobs, of_entropy).double()
    rtol = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(gradient, exact, rtol=rtol, atol=1e-6)
    assert not gradient[:, num_real:].any()


@pytest.mark.parametrize("which", [0, 1])
def test_one_gradient_may_be_missing(implementation, which):
    mapping = LogitsMap(first=0, num_real=100)
    x, labels = example(4, 100, mapping, torch.float32)
    leaf = x.double().requires_grad_()
    oracle(leaf, labels, mapping)[which].sum().backward()
    gradients = [None, None]
    gradients[which] = torch.ones(4)
    found = finish(logits.statistics(x, labels, mapping)[None])
    gradient = gradient_(x, labels, mapping, found, *gradients)
    torch.testing.assert_close(gradient.double(), leaf.grad, rtol=1e-4, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=4), st.sampled_from([1.0, 30.0, 300.0]))
def test_parts_of_a_vocabulary_join_to_the_whole(widths, scale):
    """Wherever it is cut, also into empty parts; logits may be far apart."""
    whole = LogitsMap(first=0, num_real=sum(widths) + 1)
    widths[-1] += 1
    x, labels = example(3, whole.num_real, whole, torch.float32, scale)
    parts, first = [], 0
    for width in widths:
        part = x[:, first : first + width].contiguous()
        parts.append(logits.statistics(part, labels, LogitsMap(first=first, num_real=width)))
        first += width
    found = finish(torch.stack(parts))
    wanted = oracle(x, labels, whole)
    torch.testing.assert_close(found.logprobs.double(), wanted[0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.entropy.double(), wanted[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_others(dtype):
    """Bit for bit, however many there are."""
    mapping = LogitsMap(first=0, num_real=5001)
    x, labels = example(67, 5008, mapping, dtype)
    whole = finish(logits.statistics(x, labels, mapping)[None])
    for start, stop in ((0, 1), (3, 20), (66, 67)):
        alone = finish(logits.statistics(x[start:stop], labels[start:stop], mapping)[None])
        for mine, theirs in zip(alone, whole):
            assert torch.equal(mine, theirs[start:stop])


def test_extremes(implementation):
    """Masked ids are as if they were not there; a label that no rank has and a NaN do not go unnoticed."""
    inf, nan = torch.inf, torch.nan
    mapping = LogitsMap(first=0, num_real=40)
    x = torch.zeros(5, 40)
    x[0, 1:] = -inf
    x[1, 20:] = -inf
    x[3, 33] = nan
    x[4] = torch.linspace(-1e5, 1e5, 40)
    labels = torch.tensor([0, 3, 40, 1, 39])
    found = finish(logits.statistics(x, labels, mapping)[None])
    wanted = torch.tensor([0.0, -2.9957323, -inf, nan, 0.0])
    torch.testing.assert_close(found.logprobs, wanted, equal_nan=True)
    torch.testing.assert_close(found.entropy[[0, 1, 4]], torch.tensor([0.0, 2.9957323, 0.0]))
    assert found.entropy[3].isnan()
    gradient = gradient_(
        x[:2].clone(),
        labels[:2],
        mapping,
        finish(logits.statistics(x[:2], labels[:2], mapping)[None]),
        torch.ones(2),
        torch.ones(2),
    )
    assert gradient[0].abs().max() < 1e-30
    torch.testing.assert_close(gradient[1, :20], -0.05 + torch.eye(20)[3])


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"temperature": float("nan")}, {"softcap": -1.0}])
def test_a_scale_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be above 0"):
        LogitsMap(first=0, num_real=1, **bad)


def test_what_does_not_fit_is_refused():
    x, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="4 or more"):
        logits.statistics(x, labels, LogitsMap(first=0, num_real=4))
    with pytest.raises(ValueError, match="labels must be torch.int64"):
        logits.statistics(x, labels.int(), LogitsMap(first=0, num_real=3))


def test_the_kernel_is_built():
    assert kernels.cpu_kernels() is not None
