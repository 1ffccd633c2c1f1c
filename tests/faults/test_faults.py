"""A sample of the fault matrix; `python -m tests.faults.matrix` goes through it whole."""

from __future__ import annotations

import pytest

from tests.e2e.stateful import write_inputs
from tests.faults.faults import Fault
from tests.faults.matrix import SOLUTIONS, campaign

pytestmark = pytest.mark.slow

SAMPLE = (
    ("worker killed", "train", "restarted"),
    ("verifier killed", "reward", "went on"),
    ("worker out of memory", "generate", "restarted"),
    ("connections slowed", "save", "went on"),
    ("data connections dropped", "reallocate", "restarted"),
)


def test_a_run_survives_what_befalls_it(tmp_path):
    """It ends with the bits of an undisturbed run, leaves nothing behind, and loses two steps at most."""
    write_inputs(tmp_path, SOLUTIONS)
    faults = [
        Fault(name=str(step), kind=kind, phase=phase, step=step, rank=step % 2, delay_s=0.0)
        for step, (kind, phase, _) in enumerate(SAMPLE, start=2)
    ]
    outcomes, wrong = campaign(tmp_path, "sample", faults)
    assert not wrong
    assert [outcome.end for outcome in outcomes] == [end for _, _, end in SAMPLE]
    assert all(outcome.steps_lost <= 2 for outcome in outcomes)
