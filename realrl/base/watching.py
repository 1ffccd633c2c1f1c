"""A clock that stops while nobody looks at it."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_LOOK_S = 2.0
"""In a longer time between two looks, this process was stopped, frozen, or busy elsewhere."""


class AttentiveClock:
    """A clock for the deadlines of other processes, to be read at least every second.

    A process that was stopped (by a debugger, in a frozen container) has not watched the others, and they may
    have been stopped as well. The clock counts only `LONGEST_LOOK_S` of such a gap, so that processes that
    seem late have time to be seen first.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._looked_s = now()
        self._missed_s = 0.0

    def now_s(self) -> float:
        """Return the seconds since some moment, without the gaps."""
        now_s = self._now()
        gap_s = now_s - self._looked_s
        self._missed_s += max(0.0, gap_s - LONGEST_LOOK_S)
        self._looked_s = now_s
        return now_s - self._missed_s
