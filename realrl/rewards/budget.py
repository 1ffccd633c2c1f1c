"""Bounds the time that all answers of one call take to judge; the answers that are left are `timeout`.

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

_AT_LEAST_S = 60.0
"""The budget without any answers, summed over the threads that wait."""
_PER_ANSWER_S = 1.0
"""The budget per answer, which takes about 0.01 s, or ten times as long on a crowded machine."""
_LONGEST_S = 10.0
"""The largest time that one answer can take, with its deadline and a replaced child. In the rest of a longer
wait this process was stopped."""

Result = TypeVar("Result")


def seconds_for(num_answers: int, call_timeout_s: float = math.inf) -> float:
    """Return the seconds that judging some answers may take together.

    They are many times as long as it usually takes, and less than `call_timeout_s`, the time that a call may
    run without progress: one answer with many solutions might take all of them.
    """
    usual_bound_s = _AT_LEAST_S + _PER_ANSWER_S * num_answers
    return min(usual_bound_s, call_timeout_s / 2)


class Budget:
    """Seconds that several threads spend."""

    def __init__(self, seconds: float) -> None:
        self.num_refused = 0
        """The number of pieces of work that were not done."""
        self._seconds = seconds
        self._left_s = seconds
        self._lock = threading.Lock()

    def spend(self, work: Callable[[], Result], instead: Result) -> Result:
        """Do some work and return its result; return `instead` at once if the budget is spent."""
        with self._lock:
            if self._left_s <= 0:
                self.num_refused += 1
                return instead
        began_s = time.monotonic()
        try:
            return work()
        finally:
            taken_s = time.monotonic() - began_s
            with self._lock:
                self._left_s -= min(taken_s, _LONGEST_S)

    def bounded(self, judge: Callable[[str, str], Verdict]) -> Callable[[str, str], Verdict]:
        """Return a judge that returns `TIMEOUT` at once if the budget is spent."""

        def bounded_judge(answer: str, solution: str) -> Verdict:
            return self.spend(lambda: judge(answer, solution), instead=Verdict.TIMEOUT)

        return bounded_judge

    def report(self, num_answers: int) -> None:
        """Log a warning if some work was not done."""
        if self.num_refused:
            logger.warning(
                "%d comparisons, of %d answers, were not made and count as timed out: others took all of the"
                " %g s that there are for them together",
                *(self.num_refused, num_answers, self._seconds),
            )
