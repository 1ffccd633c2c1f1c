"""GAE's CUDA kernel against the float64 loop and the CPU kernel."""

from __future__ import annotations

import pytest
import torch

from realrl.ops import kernels
from realrl.ops.gae import gae, gae_reference
from tests.ops.gae_loop import gae_loop, random_batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

LENGTHS = [[], [1, 1, 1], [0, 3, 0], [31, 32, 33, 64, 65, 1, 0], [4096, 5, 1000], [7] * 300]


def on_device(batch):
    return [x.cuda() for x in batch]


def test_cuda_kernel_is_built():
    """Without it `gae` would be the twin, and the tests below would compare the twin with itself."""
    assert kernels.for_device(torch.device("cuda")) is not None


@pytest.mark.parametrize("implementation", [gae, gae_reference])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)} sequences")
def test_agrees_with_a_float64_loop(implementation, lengths):
    """Lengths on both sides of a warp's 32 tokens, empty and single ones included."""
    batch = random_batch(lengths, seed=5)
    got = implementation(*on_device(batch), gamma=0.99, lam=0.95)
    for tensor, expected in zip(got, gae_loop(*batch, gamma=0.99, lam=0.95), strict=True):
        torch.testing.assert_close(tensor.cpu().double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.0, 0.5), (1.0, 0.0), (0.9, 1.0)])
def test_agrees_with_the_cpu_kernel(gamma, lam):
    """The two share their arithmetic, so only the order of additions may differ."""
    batch = random_batch([1, 100, 0, 2000, 33], seed=9)
    expected = gae(*batch, gamma=gamma, lam=lam)
    for tensor, wanted in zip(gae(*on_device(batch), gamma=gamma, lam=lam), expected, strict=True):
        torch.testing.assert_close(tensor.cpu(), wanted, rtol=1e-6, atol=1e-6)


def test_host_bounds_and_another_stream():
    """`cu_seqlens` may stay on the host, and the kernel runs on the stream that is current."""
    rewards, values, cu_seqlens, bootstrap = random_batch([50, 60], seed=2)
    expected, _ = gae(rewards, values, cu_seqlens, bootstrap, gamma=0.9, lam=0.9)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        got, _ = gae(rewards.cuda(), values.cuda(), cu_seqlens, bootstrap, gamma=0.9, lam=0.9)
    stream.synchronize()
    torch.testing.assert_close(got.cpu(), expected, rtol=1e-6, atol=1e-6)
