"""How long judging the answers of one call may take together; answers that come after it are `timeout`.

Without it, a policy that finds answers which each take their whole deadline makes every step take hours.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from realrl.rewards.verdict import Verdict

logger = logging.getLogger(__name__)

_AT_LEAST_S, _PER_ANSWER_S = 60.0, 1.0
"""Summed over the threads that wait. An answer takes about 0.01 s, on a crowded machine ten times as long."""
_LONGEST_S = 10.0
"""More than one answer takes, deadline and a replaced child included: the rest of a longer wait is time in
which this process was stopped."""

Result = TypeVar("Result")


def seconds_for(num_answers: int, call_timeout_s: float = math.inf) -> float:
    """What judging so many answers may take: a multiple of what it takes, and less than a call may go without
    progress, as one answer with many solutions might take all of it.
    """
    return min(_AT_LEAST_S + _PER_ANSWER_S * num_answers, call_timeout_s / 2)


class Budget:
    """Seconds that are spent by several threads."""

    def __init__(self, seconds: float) -> None:
        self.num_refused = 0
        """How much was asked for that was not done."""
        self._seconds = self._left_s = seconds
        self._lock = threading.Lock()

    def spend(self, work: Callable[[], Result], instead: Result) -> Result:
        """Do some work, which takes what it takes; nothing but `instead` once all is spent."""
        with self._lock:
            if self._left_s <= 0:
                self.num_refused += 1
                return instead
        began_s = time.monotonic()
        try:
            return work()
        finally:
            with self._lock:
                self._left_s -= min(time.monotonic() - began_s, _LONGEST_S)

    def bounded(self, judge: Callable[[str, str], Verdict]) -> Callable[[str, str], Verdict]:
        """A judge that says `TIMEOUT` at once when all is spent."""
        return lambda answer, solution: self.spend(lambda: judge(answer, solution), Verdict.TIMEOUT)

    def report(self, num_answers: int) -> None:
        """Say what was not done, if there is any."""
        if self.num_refused:
            logger.warning(
                "%d comparisons, of %d answers, were not made and count as timed out: others took all of the"
                " %g s that there are for them together",
                *(self.num_refused, num_answers, self._seconds),
            )
