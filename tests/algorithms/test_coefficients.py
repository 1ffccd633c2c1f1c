"""Coefficients that follow what was measured."""

from __future__ import annotations

import pytest

from realrl.algorithms.coefficients import adapted_entropy_coef, adapted_kl_coef


@pytest.mark.parametrize(
    ("kl", "factor"), [(6.0, 1.0), (6.6, 1.001), (60.0, 1.002), (5.4, 0.999), (0.0, 0.998)]
)
def test_the_kl_is_held_at_its_target(kl, factor):
    """By a relative error of at most a fifth; 100 samples of 10,000 are a hundredth of it."""
    found = adapted_kl_coef(0.2, kl, target=6.0, num_samples=100, horizon=10_000)
    assert found == pytest.approx(0.2 * factor)


def test_the_entropy_is_held_above_its_target():
    """Step by step, never by a negative coefficient."""
    coefs = [0.0]
    for entropy in (0.1, 0.1, 0.5, 0.1, 0.5, 0.5, 0.5):
        coefs.append(adapted_entropy_coef(coefs[-1], entropy, target=0.2, change=0.005))
    assert coefs == pytest.approx([0, 0.005, 0.01, 0.005, 0.01, 0.005, 0, 0])
