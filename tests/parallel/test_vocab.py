"""Log-probabilities straight from hidden states, alone and over ranks, against float64 autograd."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from realrl.parallel import vocab
from realrl.parallel.vocab import LogitsBudget, vocab_logprobs
from tests.world import run_world

HIDDEN = 16
VOCABULARIES = (64, 50, 9, 5)
"""Over four ranks: even, the last with fewer ids, the last with none, and one that lacks even padding."""


def example(num_tokens: int, vocab_size: int, dtype: torch.dtype, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(num_tokens, HIDDEN, generator=generator).to(dtype)
    weight = torch.randn(vocab_size, HIDDEN, generator=generator).to(dtype)
    return hidden, weight, torch.randint(vocab_size, (num_tokens,), generator=generator)


def oracle(logits: Tensor, labels: Tensor, temperature: float, softcap: float | None):
    if softcap:
        logits = softcap * (logits / softcap).tanh()
    logp = (logits / temperature).log_softmax(dim=-1)
    return logp.gather(-1, labels[:, None])[:, 0], -(logp.exp() * logp).sum(dim=-1)


def expected(hidden: Tensor, weight: Tensor, labels: Tensor, temperature: float, softcap: float | None):
    """Values, and the gradients of a loss of both, in float64 on logits as exact as the type lets them be."""
    leaves = [x.double().requires_grad_() for x in (hidden, weight)]
    exact = leaves[0] @ leaves[1].t()
    logits = exact + ((hidden @ weight.t()).double() - exact).detach()
    values = oracle(logits, labels, temperature, softcap)
    loss_of(*values).backward()
    return values, [x.grad for x in leaves]


def loss_of(logprobs: Tensor, entropy: Tensor) -> Tensor:
    steps = torch.arange(1, len(logprobs) + 1, dtype=logprobs.dtype) / len(logprobs)
    return (logprobs * steps).sum() + (entropy * (1 - steps)).sum()


def check(hidden: Tensor, weight: Tensor, labels: Tensor, group=None, first: int = 0, **scale) -> None:
    """This rank's rows are those from `first` on, with as much padding as every rank's part needs."""
    values, (of_hidden, of_weight) = expected(hidden, weight, labels, **scale)
    size = 1 if group is None else dist.get_world_size(group)
    rows = -(-len(weight) // size)
    num_real = min(rows, len(weight) - first)
    part = torch.full((rows, HIDDEN), 7.0, dtype=weight.dtype)
    part[: max(num_real, 0)] = weight[first : first + rows]
    leaves = [x.clone().requires_grad_() for x in (hidden, part)]
    found = vocab_logprobs(*leaves, labels, group, num_real=num_real, entropy=True, **scale)
    close = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[hidden.dtype]
    for mine, theirs in zip(found, values):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-5)
    loss_of(*found).backward()
    of_part = torch.zeros(rows, HIDDEN, dtype=torch.float64)
    of_part[: max(num_real, 0)] = of_weight[first : first + rows]
    for leaf, wanted in zip(leaves, (of_hidden, of_part)):
        assert leaf.grad.dtype == hidden.dtype
        scaled = close * float(wanted.abs().max().clamp(min=1))
        torch.testing.assert_close(leaf.grad.double(), wanted, rtol=close, atol=scaled)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("temperature", "softcap"), [(1.0, None), (0.6, 30.0)])
@pytest.mark.parametrize(
    ("chunk", "kept"), [(1 << 20, 1 << 20), (1 << 20, 0), (3000, 0), (1, 0), (1000, 2000)]
)
def test_one_rank(monkeypatch, dtype, temperature, softcap, chunk, kept):
    """Logits kept, or made again in one chunk, in several, or row by row."""
    monkeypatch.setitem(vocab.LOGITS_BUDGETS, "cpu", LogitsBudget(chunk, kept))
    check(*example(37, 50, dtype), temperature=temperature, softcap=softcap)


@pytest.mark.parametrize("world", [2, 4])
def test_several_ranks(world):
    run_world(_check_parts, world)


def _check_parts(rank: int) -> None:
    group = dist.group.WORLD
    for vocab_size in VOCABULARIES:
        rows = -(-vocab_size // dist.get_world_size())
        for kept in (0, 1 << 20):
            vocab.LOGITS_BUDGETS["cpu"] = LogitsBudget(1000, kept)
            batch = example(23, vocab_size, torch.float32)
            check(*batch, group, rank * rows, temperature=0.9, softcap=None)
            check(*batch, group, rank * rows, temperature=1.0, softcap=5.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 3000), st.integers(1, 200))
def test_a_token_does_not_depend_on_the_chunks(num_tokens, chunk, vocab_size):
    """Bit for bit: whole numbers make the logits exact, in whatever order a product adds."""
    hidden, weight, labels = example(num_tokens, vocab_size, torch.float32)
    hidden, weight = hidden.round(), weight.round()
    with pytest.MonkeyPatch.context() as patch:
        found = [vocab_logprobs(hidden, weight, labels, None, num_real=vocab_size, entropy=True)]
        patch.setitem(vocab.LOGITS_BUDGETS, "cpu", LogitsBudget(chunk, 256 << 20))
        found.append(vocab_logprobs(hidden, weight, labels, None, num_real=vocab_size, entropy=True))
    one = vocab_logprobs(hidden[-1:], weight, labels[-1:], None, num_real=vocab_size, entropy=True)
    for whole, chunked, alone in zip(*found, one):
        assert torch.equal(whole, chunked)
        assert torch.equal(whole[-1:], alone)


def test_no_tokens():
    hidden, weight, labels = example(0, 8, torch.float32)
    for x in (hidden, weight):
        x.requires_grad_()
    logprobs, entropy = vocab_logprobs(hidden, weight, labels, None, num_real=8)
    assert logprobs.shape == (0,) and entropy is None
    logprobs.sum().backward()
    assert hidden.grad.shape == (0, HIDDEN) and not weight.grad.any()


@pytest.mark.parametrize("which", [0, 1])
def test_one_input_may_be_frozen(which):
    """Its gradient is not made, the other's is the same."""
    hidden, weight, labels = example(5, 8, torch.float32)
    _, gradients = expected(hidden, weight, labels, 1.0, None)
    inputs = [hidden, weight]
    inputs[which].requires_grad_()
    loss_of(*vocab_logprobs(*inputs, labels, None, num_real=8, entropy=True)).backward()
    torch.testing.assert_close(inputs[which].grad.double(), gradients[which], rtol=1e-5, atol=1e-5)
    assert inputs[1 - which].grad is None


def test_a_second_backward_pass_gives_the_same():
    """Although the first has overwritten the logits."""
    hidden, weight, labels = example(5, 8, torch.float32)
    hidden.requires_grad_()
    logprobs, _ = vocab_logprobs(hidden, weight, labels, None, num_real=8)
    first, second = (torch.autograd.grad(logprobs.sum(), hidden, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)
