"""GAE's kernel and its twin against a loop in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.ops import kernels
from realrl.ops.gae import gae, gae_reference
from tests.ops.gae_loop import gae_loop, random_batch

IMPLEMENTATIONS = [gae, gae_reference]
LENGTHS = {
    "ragged": [5, 1, 17, 64, 33, 2],
    "length 1": [1, 1, 1],
    "empty sequences": [0, 3, 0, 0, 4, 0],
    "only empty": [0, 0],
    "no sequence": [],
    "long": [3000, 1, 777],
}


def test_cpu_kernel_is_built():
    """Without it `gae` would be the twin, and the tests below would compare the twin with itself."""
    assert kernels.for_device(torch.device("cpu")) is not None


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("bootstrap", [True, False, None])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_agrees_with_a_float64_loop(implementation, lengths, bootstrap):
    """Every token's advantage and return, for sequences that end, are cut off, or mixed."""
    batch = random_batch(lengths, seed=len(lengths), bootstrap=bootstrap)
    got = implementation(*batch, gamma=0.99, lam=0.95)
    for tensor, expected in zip(got, gae_loop(*batch, gamma=0.99, lam=0.95), strict=True):
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), max_size=12),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    seed=st.integers(0, 1 << 16),
)
def test_kernel_and_twin_agree_with_the_loop(lengths, gamma, lam, seed):
    """For any lengths and discounts, 0 and 1 included."""
    batch = random_batch(lengths, seed=seed)
    expected = gae_loop(*batch, gamma=gamma, lam=lam)
    for implementation in IMPLEMENTATIONS:
        for tensor, wanted in zip(implementation(*batch, gamma=gamma, lam=lam), expected, strict=True):
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), max_size=12), seed=st.integers(0, 1 << 16))
def test_each_sequence_may_have_a_lambda_of_its_own(lengths, seed):
    """As VAPO has it, by length; one that all have gives the bits of a number."""
    batch = random_batch(lengths, seed=seed)
    lams = torch.rand(len(lengths), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = gae_loop(*batch, gamma=0.9, lam=lams)
    for implementation in IMPLEMENTATIONS:
        for tensor, wanted in zip(implementation(*batch, gamma=0.9, lam=lams), expected, strict=True):
            torch.testing.assert_close(tensor.double(), wanted, rtol=1e-5, atol=1e-5)
        alike = implementation(*batch, gamma=0.9, lam=torch.full_like(lams, 0.3))
        for tensor, wanted in zip(alike, implementation(*batch, gamma=0.9, lam=0.3), strict=True):
            assert torch.equal(tensor, wanted)


def test_threads_do_not_change_the_result():
    """A batch large enough for several threads gives the bits that one thread gives."""
    batch = random_batch([4000] * 8, seed=3)
    before = torch.get_num_threads()
    try:
        results = []
        for num_threads in (1, 4):
            torch.set_num_threads(num_threads)
            results.append(gae(*batch, gamma=1.0, lam=0.9))
    finally:
        torch.set_num_threads(before)
    for alone, together in zip(*results, strict=True):
        assert torch.equal(alone, together)


def test_strided_inputs_are_read_by_element():
    """A view with gaps means its elements, not the memory between them."""
    rewards, values, cu_seqlens, bootstrap = random_batch([7, 5], seed=1)
    strided = [x.repeat_interleave(2)[::2] for x in (rewards, values)]
    got = gae(*strided, cu_seqlens, bootstrap, gamma=0.9, lam=0.8)
    expected = gae(rewards, values, cu_seqlens, bootstrap, gamma=0.9, lam=0.8)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(
    ("argument", "replacement", "message"),
    [
        (0, torch.zeros(7), "values must be"),
        (0, torch.zeros(8, dtype=torch.float64), "rewards must be torch.float32"),
        (1, torch.zeros(8), "values must be torch.float32 \\[10\\]"),
        (2, torch.tensor([0, 5, 9], dtype=torch.int32), "must rise from 0 to 8"),
        (2, torch.tensor([0, 9, 8], dtype=torch.int32), "must rise"),
        (2, torch.tensor([1, 5, 8], dtype=torch.int32), "must rise"),
        (2, torch.tensor([0, 5, 8]), "cu_seqlens must be torch.int32"),
        (3, torch.zeros(3, dtype=torch.bool), "bootstrap must be"),
    ],
)
def test_what_does_not_fit_is_refused(argument, replacement, message):
    """The kernel reads raw memory, so nothing of a wrong type or shape may reach it."""
    batch = list(random_batch([5, 3], seed=0))
    batch[argument] = replacement
    with pytest.raises(ValueError, match=message):
        gae(*batch, gamma=1.0, lam=1.0)
