"""Losses over pairs against their formulas in float64, and against TRL's own code where it stands alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from realrl.algorithms.preference import (
    bradley_terry_loss,
    centring_loss,
    implicit_reward,
    ipo_loss,
    kto_loss,
    odds_ratio_loss,
    simpo_loss,
)

GENERATOR = torch.Generator().manual_seed(0)
CHOSEN, REJECTED = -3 * torch.rand(2, 9, generator=GENERATOR, dtype=torch.float64) - 0.01


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def check(found: torch.Tensor, formula) -> None:
    expected = [formula(c, r) for c, r in zip(CHOSEN.tolist(), REJECTED.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_preferred_response_is_likely():
    """By the difference of scores, less a margin; a pair the wrong way round counts by its probability."""
    check(bradley_terry_loss(CHOSEN, REJECTED), lambda c, r: -log_sigmoid(c - r))
    found = bradley_terry_loss(CHOSEN, REJECTED, margin=0.3, smoothing=0.1)
    check(found, lambda c, r: -0.9 * log_sigmoid(c - r - 0.3) - 0.1 * log_sigmoid(r + 0.3 - c))
    margins = torch.arange(9) / 10
    by_pair = bradley_terry_loss(CHOSEN, REJECTED, margin=margins)
    for i, margin in enumerate(margins.tolist()):
        assert by_pair[i] == bradley_terry_loss(CHOSEN, REJECTED, margin=margin)[i]


def test_each_loss_is_its_formula():
    check(implicit_reward(CHOSEN, REJECTED, beta=0.1), lambda c, r: 0.1 * (c - r))
    check(ipo_loss(CHOSEN, REJECTED, beta=0.1), lambda c, r: (c - r - 5) ** 2)
    check(simpo_loss(CHOSEN, REJECTED, beta=2.0, margin=0.5), lambda c, r: -log_sigmoid(2 * (c - r) - 0.5))
    check(centring_loss(CHOSEN, REJECTED), lambda c, r: (c + r) ** 2)

    def odds(x: float) -> float:
        return math.exp(x) / (1 - math.exp(x))

    check(odds_ratio_loss(CHOSEN, REJECTED), lambda c, r: -log_sigmoid(math.log(odds(c) / odds(r))))


def test_odds_hold_where_a_response_is_nearly_certain():
    """In float32, where 1 - p is 0."""
    certain = torch.tensor([-1e-9, 0.0], requires_grad=True)
    loss = odds_ratio_loss(certain, torch.tensor([-1.0, 0.0]))
    loss.sum().backward()
    assert loss.isfinite().all() and certain.grad.isfinite().all()


def test_a_response_is_valued_against_what_the_policy_has_moved():
    is_desirable = torch.arange(9) % 2 == 0
    found = kto_loss(CHOSEN - REJECTED, is_desirable, 0.2, beta=0.5)
    for i, (c, r) in enumerate(zip(CHOSEN.tolist(), REJECTED.tolist())):
        gain = 0.5 * (c - r - 0.2)
        assert float(found[i]) == pytest.approx(1 - math.exp(log_sigmoid(gain if i % 2 == 0 else -gain)))


def test_simpo_and_orpo_are_trls():
    """Its trainers' own functions, given the same log-probabilities."""
    cpo = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer
    orpo = pytest.importorskip("trl.experimental.orpo.orpo_trainer").ORPOTrainer
    trainer = SimpleNamespace(
        alpha=0.0,
        beta=2.0,
        simpo_gamma=0.5,
        label_smoothing=0.0,
        loss_type="simpo",
        accelerator=SimpleNamespace(device="cpu"),
    )
    theirs, *_ = cpo.cpo_loss(trainer, CHOSEN, REJECTED)
    torch.testing.assert_close(simpo_loss(CHOSEN, REJECTED, beta=2.0, margin=0.5), theirs)
    theirs, *_ = orpo.odds_ratio_loss(trainer, CHOSEN, REJECTED)
    ours = -2.0 * odds_ratio_loss(CHOSEN.float(), REJECTED.float())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
