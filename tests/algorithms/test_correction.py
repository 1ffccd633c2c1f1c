"""Corrections for another policy's tokens, against loops in float64; presets against their sources."""

from __future__ import annotations

import math

import pytest
import torch

from realrl.algorithms.correction import corrected, stale_and_bad
from realrl.algorithms.policy import ResponseTokens
from realrl.algorithms.presets import CORRECTIONS, Correction

CU_SEQLENS = torch.tensor([0, 30, 31, 86, 100], dtype=torch.int32)
CASES = {
    "token": Correction(weight="token", cap=1.2),
    "sequence": Correction(weight="sequence", cap=1.2),
    "geometric": Correction(weight="geometric", cap=1.05),
    "both": Correction(weight="token", cap=1.3, mask="sequence", low=0.5, high=2.0),
    **CORRECTIONS,
    "geo-rs": Correction(mask="geometric", low=0.98, high=1.06),
}


def drawn(seed: int = 0, noise: float = 0.15):
    """Log-probabilities of 4 sequences by two policies: `[T]` float64; and the responses' mask."""
    generator = torch.Generator().manual_seed(seed)
    own = -3 * torch.rand(100, generator=generator, dtype=torch.float64) - 0.5
    prox = own + noise * torch.randn(100, generator=generator, dtype=torch.float64)
    mask = torch.rand(100, generator=generator) < 0.7
    mask[30] = False
    return prox, own, mask


def binary_kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def by_loop(prox, own, mask, correction):
    """Weight, whether it is kept, and whether it was cut, of each token."""
    rows = [(0.0, False, False)] * len(own)
    for first, last in zip(CU_SEQLENS.tolist(), CU_SEQLENS.tolist()[1:]):
        places = [i for i in range(first, last) if mask[i]]
        d = {i: float(prox[i] - own[i]) for i in places}
        total = math.fsum(d.values())
        for i in places:
            by = {
                "none": 1.0,
                "token": math.exp(d[i]),
                "sequence": math.exp(total),
                "geometric": math.exp(total / len(places)),
            }
            weight = by[correction.weight]
            if correction.mask == "binary_kl":
                p, q = math.exp(prox[i]), math.exp(own[i])
                is_kept = max(binary_kl(p, q), binary_kl(q, p)) <= correction.high
            else:
                is_kept = (
                    correction.mask == "none" or correction.low <= by[correction.mask] <= correction.high
                )
            rows[i] = (min(weight, correction.cap), is_kept, weight > correction.cap)
    return rows


@pytest.mark.parametrize("name", CASES)
def test_corrections_agree_with_a_loop(name):
    """In every combination of a weight, its cap, and a mask; what is left out has the factor 0."""
    prox, own, mask = drawn()
    found = corrected(prox, own, mask, CU_SEQLENS, CASES[name])
    weights, kept, capped = zip(*by_loop(prox, own, mask, CASES[name]), strict=True)
    factors = [weight * is_kept for weight, is_kept in zip(weights, kept)]
    torch.testing.assert_close(found.weights, torch.tensor(weights, dtype=torch.float64))
    torch.testing.assert_close(found.factors, torch.tensor(factors, dtype=torch.float64))
    assert found.is_kept.tolist() == list(kept) and found.is_capped.tolist() == list(capped)
    if CASES[name].mask != "none" and name not in ("icepop", "kpop", "sequence-mis", "seq-mask-tis"):
        assert 0 < found.is_kept[mask].sum() < mask.sum(), "the case must show something"


@pytest.mark.parametrize("name", ["icepop", "kpop", "sequence-mis", "seq-mask-tis"])
def test_presets_leave_out_what_moved_far(name):
    """And only that: two policies that agree lose nothing."""
    prox, own, mask = drawn(noise=1.5)
    found = corrected(prox, own, mask, CU_SEQLENS, CORRECTIONS[name])
    assert 0 < (~found.is_kept[mask]).sum()
    assert (found.factors[~found.is_kept] == 0).all()
    same = corrected(own, own, mask, CU_SEQLENS, CORRECTIONS[name])
    assert torch.equal(same.factors, mask.double()) and not same.is_capped.any()


def test_a_weight_that_overflows_and_is_left_out_is_zero():
    """e^(55 * 100) is infinite."""
    prox, own, mask = drawn()
    found = corrected(own + 100.0, own, mask, CU_SEQLENS, CORRECTIONS["sequence-mis"])
    assert not found.factors.any()


def test_other_sequences_do_not_matter():
    """A micro-batch gets what the whole batch gets."""
    prox, own, mask = drawn(3)
    whole = corrected(prox, own, mask, CU_SEQLENS, CASES["both"])
    part = corrected(prox[31:], own[31:], mask[31:], CU_SEQLENS[2:] - 31, CASES["both"])
    for of_whole, of_part in zip(whole, part, strict=True):
        torch.testing.assert_close(of_whole[31:], of_part, rtol=1e-12, atol=0)


def test_stale_responses_are_left_out_where_they_are_bad():
    """By a loop over responses: the mean of rollout's minus policy's, and the advantages' sign."""
    prox, own, mask = drawn(4, noise=0.4)
    responses = mask.nonzero()[:, 0]
    advantages = torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    sequence = torch.bucketize(responses, CU_SEQLENS[1:].long(), right=True)
    ones = torch.ones(len(responses), dtype=torch.float64)
    tokens = ResponseTokens(
        prox[responses], own[responses], advantages[sequence], ones, responses, CU_SEQLENS
    )
    distances = []
    for number in range(4):
        its = (sequence == number).nonzero()[:, 0].tolist()
        moved = [float(own[responses[i]] - prox[responses[i]]) for i in its]
        distances.append(math.fsum(moved) / max(1, len(moved)))
    low, high = sorted((distances[0], distances[2]))
    found = stale_and_bad(tokens, own[responses], limit=(low + high) / 2)
    worse = 0 if distances[0] > distances[2] else 2
    assert found.tolist() == [number == worse for number in sequence.tolist()]
