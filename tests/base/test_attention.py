"""A clock that counts only while somebody looks."""

from __future__ import annotations

import random

import pytest

from realrl.base.watching import LONGEST_LOOK_S, AttentiveClock


@pytest.mark.parametrize("seed", range(5))
def test_gaps_count_as_the_longest_look_at_most(seed):
    """The sum over all gaps, each cut down to that."""
    chance = random.Random(seed)
    gaps = [chance.choice((0.0, 0.2, 1.9, 2.1, 600.0)) for _ in range(50)]
    time_s = 1000.0
    clock = AttentiveClock(lambda: time_s)
    begun_s = clock.now_s()
    for gap_s in gaps:
        time_s += gap_s
        clock.now_s()
    assert clock.now_s() - begun_s == pytest.approx(sum(min(gap, LONGEST_LOOK_S) for gap in gaps))
