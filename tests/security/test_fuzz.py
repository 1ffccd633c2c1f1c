"""A few thousand inputs of strangers and of a worker gone mad; `tests/security/fuzz.py` sends any number."""

from __future__ import annotations

import pytest

from tests.security.fuzz import fuzz


@pytest.mark.slow
def test_strangers_change_no_number_of_a_run(tmp_path):
    """Metrics, rollouts and weights are those of an undisturbed run; the log has a few lines more."""
    outcome = fuzz(tmp_path, 4000, seed=3)
    assert outcome.differences == [] and outcome.leaks == []
    assert sum(outcome.inputs.values()) > 3500 and all(outcome.inputs.values()), outcome.inputs
    assert 1 <= outcome.lines < 12
    assert 100 <= outcome.dropped <= outcome.inputs["nonsense of workers"]
