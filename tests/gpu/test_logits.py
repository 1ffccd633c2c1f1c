"""The CUDA kernels on logits against float64, and the whole head against the CPU's."""

from __future__ import annotations

import pytest
import torch

from realrl.ops import kernels, logits
from realrl.ops.logits import LogitsMap, finish, gradient_
from realrl.parallel import vocab
from realrl.parallel.vocab import LogitsBudget, vocab_logprobs
from tests.ops.test_logits import DTYPES, SHAPES, example, oracle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_cuda_kernel_is_built():
    """Without it the twin would be compared with itself."""
    assert kernels.for_device(torch.device("cuda")) is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "width", "num_real"), [*SHAPES, (3, 151937, 151936)])
@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (1.3, 30.0)])
def test_values_and_gradients_are_the_formulas(dtype, rows, width, num_real, temperature, softcap):
    """Rows that begin at multiples of a vector and rows that do not."""
    mapping = LogitsMap(first=7, num_real=num_real, temperature=temperature, softcap=softcap)
    x, labels = (t.cuda() for t in example(rows, width, mapping, dtype))
    leaf = x.double().requires_grad_()
    wanted = oracle(leaf, labels, mapping)
    found = finish(logits.statistics(x, labels, mapping)[None])
    torch.testing.assert_close(found.logprobs.double(), wanted[0], rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(found.entropy.double(), wanted[1], rtol=1e-6, atol=1e-5)

    of_logprobs, of_entropy = torch.randn(2, rows, device="cuda")
    (wanted[0] @ of_logprobs.double() + wanted[1] @ of_entropy.double()).backward()
    exact = leaf.grad.to(dtype).double()
    gradient = gradient_(x, labels, mapping, found, of_logprobs, of_entropy).double()
    rtol = 1e-4 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(gradient, exact, rtol=rtol, atol=1e-6)
    assert not gradient[:, num_real:].any()


def test_a_row_does_not_depend_on_the_others():
    """Bit for bit, however many there are."""
    mapping = LogitsMap(first=0, num_real=5001)
    x, labels = (t.cuda() for t in example(67, 5008, mapping, torch.bfloat16))
    whole = finish(logits.statistics(x, labels, mapping)[None])
    alone = finish(logits.statistics(x[3:20], labels[3:20], mapping)[None])
    for mine, theirs in zip(alone, whole):
        assert torch.equal(mine, theirs[3:20])


def test_a_nan_does_not_go_unnoticed():
    mapping = LogitsMap(first=0, num_real=1000)
    x = torch.zeros(3, 1000, device="cuda")
    x[0, 0], x[1, 999], x[2, 0] = torch.nan, torch.nan, -torch.inf
    found = finish(logits.statistics(x, torch.ones(3, dtype=torch.int64, device="cuda"), mapping)[None])
    assert found.logprobs[:2].isnan().all() and found.logprobs[2].isfinite()


@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_the_head_agrees_with_the_cpus(monkeypatch, kept):
    for device in ("cpu", "cuda"):
        monkeypatch.setitem(vocab.LOGITS_BUDGETS, device, LogitsBudget(100_000, kept))
    hidden, weight, labels = torch.randn(50, 32), torch.randn(1000, 32), torch.randint(1000, (50,))
    results = []
    for device in ("cpu", "cuda"):
        leaves = [x.to(device, copy=True).requires_grad_() for x in (hidden, weight)]
        found = vocab_logprobs(*leaves, labels.to(device), None, num_real=1000, entropy=True)
        sum(x.sum() for x in found).backward()
        results.append([x.detach().cpu() for x in (*found, *(leaf.grad for leaf in leaves))])
    for cpu, cuda in zip(*results):
        torch.testing.assert_close(cuda, cpu, rtol=1e-4, atol=1e-4)
