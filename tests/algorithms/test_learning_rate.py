"""The learning rate over a run."""

from __future__ import annotations

import pytest

from realrl.algorithms.learning_rate import learning_rate
from realrl.api.config import OptimizerConfig


def rates(total_steps, **settings):
    config = OptimizerConfig(lr=1.0, **settings)
    return [learning_rate(config, step, total_steps) for step in range(total_steps)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0.25]),
        ({"schedule": "linear", "min_lr_ratio": 0.5}, [1, 0.875, 0.75, 0.625]),
        ({"schedule": "cosine"}, [1, 0.853553, 0.5, 0.146447]),
        ({"warmup_steps": 2}, [0.5, 1, 1, 1]),
        ({"warmup_steps": 2, "schedule": "linear"}, [0.5, 1, 1, 0.5]),
        ({"warmup_steps": 8}, [0.125, 0.25, 0.375, 0.5]),
        ({"warmup_steps": 4, "schedule": "cosine"}, [0.25, 0.5, 0.75, 1]),
    ],
)
def test_rates_by_hand(settings, expected):
    """Warm-up from above 0 to the peak, then the fall."""
    assert rates(4, **settings) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_fall_ends_at_its_floor(schedule):
    """Just after the last step, and for any step beyond it."""
    config = OptimizerConfig(lr=2e-4, schedule=schedule, warmup_steps=3, min_lr_ratio=0.1)
    assert learning_rate(config, 10, 10) == pytest.approx(2e-5)
    assert learning_rate(config, 99, 10) == pytest.approx(2e-5)
