"""Runs give the bits that were recorded on this machine, before the code was changed.

Record with `python -m tests.bits.same_bits record FILE`, then set REALRL_SAME_BITS=FILE.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.bits.same_bits import CASES, differences, digests_of, machine

FILE = os.environ.get("REALRL_SAME_BITS", "")


def test_a_change_of_one_bit_is_a_difference():
    """Of a digest that differs, of one that was not there before, and of one that is not there any more."""
    before = {"run": {"metrics": "a", "actor": "b"}}
    assert differences(before, before) == []
    assert differences(before, {"run": {"metrics": "a", "actor": "c"}}) == ["run: actor differs"]
    assert differences(before, {"run": {"critic": "d"}}) == [
        "run: actor differs",
        "run: critic differs",
        "run: metrics differs",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not FILE, reason="REALRL_SAME_BITS names no file of recorded digests")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_run_gives_the_recorded_bits(case):
    """Each metric that is no time, each rollout, and each weight of the last checkpoint."""
    recorded = json.loads(Path(FILE).read_text())
    if recorded["machine"] != machine():
        pytest.skip(f"{FILE} was recorded on another machine, which rounds otherwise")
    assert differences(recorded["runs"], digests_of([case])) == []
