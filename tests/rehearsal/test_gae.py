"""GAE's CUDA kernel, run on the CPU, against the float64 loop."""

from __future__ import annotations

import pytest
import torch

from realrl.ops.gae import gae
from tests.ops.gae_loop import gae_loop, random_batch
from tests.rehearsal.rehearse import in_every_order

LENGTHS = {
    "no sequence": [],
    "only empty": [0, 0],
    "length 1": [1, 1, 1],
    "around a warp": [31, 32, 33, 64, 65, 1, 0],
    "several blocks": [7, 0, 3, 40, 5, 6, 1, 2, 9],
    "long": [500, 1],
}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("bootstrap", [True, None])
def test_agrees_with_a_float64_loop(library, lengths, bootstrap):
    """Every token's advantage and return, for sequences that are cut off or mixed."""
    batch = random_batch(lengths, seed=5, bootstrap=bootstrap)
    lams = torch.linspace(0.5, 1, len(lengths), dtype=torch.float64)
    found = in_every_order(library, lambda *batch: gae(*batch[:-1], gamma=0.99, lam=batch[-1]), *batch, lams)
    for tensor, wanted in zip(found, gae_loop(*batch, gamma=0.99, lam=lams), strict=True):
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.0, 0.5), (1.0, 0.0), (0.9, 1.0)])
def test_discounts(library, gamma, lam):
    """0 and 1 included; inputs with gaps between their elements."""
    rewards, values, *rest = random_batch([1, 100, 0, 33], seed=9)

    def run(rewards, values, *rest):
        strided = (x.repeat_interleave(2)[::2] for x in (rewards, values))
        return gae(*strided, *rest, gamma=gamma, lam=lam)

    found = in_every_order(library, run, rewards, values, *rest)
    for tensor, wanted in zip(found, gae_loop(rewards, values, *rest, gamma=gamma, lam=lam), strict=True):
        torch.testing.assert_close(tensor.double(), wanted, rtol=1e-6, atol=1e-6)
