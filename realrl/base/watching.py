"""Time that passes only while somebody looks."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_LOOK_S = 2.0
"""A longer time between two looks is one in which this process was stopped, frozen, or busy elsewhere."""


class AttentiveClock:
    """A clock for deadlines of others, to be looked at at least every second.

    A process that was stopped (by a debugger, in a frozen container) has not watched the others meanwhile,
    and they may have been stopped as well. Of such a gap the clock counts `LONGEST_LOOK_S` alone: who seems
    late gets the time to be seen first.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked_s = now()
        self._missed_s = 0.0

    def now_s(self) -> float:
        """Seconds since some moment, without the gaps."""
        now_s = self._now()
        self._missed_s += max(0.0, now_s - self._looked_s - LONGEST_LOOK_S)
        self._looked_s = now_s
        return now_s - self._missed_s
