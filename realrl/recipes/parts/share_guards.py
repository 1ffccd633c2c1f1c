"""A guard over how many checks say nothing: shares that jump against the run's own earlier steps."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from realrl.recipes.parts.guards import Finding, Graded
from realrl.rewards.verdict import Verdict

LATELY, BEFORE = 4, 8
"""Steps whose mean share is compared, and steps of the means that it is compared with."""
_STANDARD_ERRORS = 6.0
"""How far apart means are that are no chance. The lowest of 2,000 steps is 5 below the highest in one run of
five, and 6 in one of fifty, where half of the responses have the verdict; with fewer of them in less."""
_FROM_THE_START = 0.5
"""A share of checks without a result that is no accident."""
_MARGIN = {Verdict.ERROR: 0.05, Verdict.TIMEOUT: 0.05, Verdict.NO_ANSWER: 0.2}
"""How far at least: a policy forgets its form now and then, and finds it again."""
_CAUSE = {
    Verdict.ERROR: "checks break on what the policy writes now; logs/ names the answers",
    Verdict.TIMEOUT: "the policy may have found answers that take too long to compare, or the machine is"
    " busy; such answers earn scores.ungraded",
    Verdict.NO_ANSWER: "the policy states no answer that is found; does it collapse, or do responses reach"
    " generation.max_new_tokens?",
}


class _Share(NamedTuple):
    """How many of some responses have a verdict."""

    number: float
    total: float

    @property
    def mean(self) -> float:
        """The mean of what was noted."""
        return self.number / self.total

    @property
    def variance(self) -> float:
        """Of the mean; never 0, as what has not happened yet may (Laplace's rule)."""
        chance = (self.number + 1) / (self.total + 2)
        return chance * (1 - chance) / self.total


class JumpingShare:
    """Finds that a verdict became more frequent than it was in the best of the run's earlier steps.

    Steps before count by the mean of any `BEFORE` of them in a row: a share that creeps up is found as well.
    """

    def __init__(self, verdict: Verdict) -> None:
        self._verdict = verdict
        self._steps: deque[_Share] = deque(maxlen=BEFORE + LATELY)
        self._lowest: _Share | None = None

    def look(self, step: int, graded: Sequence[Graded]) -> Iterator[Finding]:
        """Take in a step, and return what is wrong."""
        if not graded:
            return
        having_it = [response for response in graded if response.verdict == self._verdict]
        share = _Share(len(having_it), len(graded))
        self._steps.append(share)
        steps = list(self._steps)
        if len(steps) < BEFORE + LATELY:
            yield from self._from_the_start(steps)
            return
        before = _joined(steps[:BEFORE])
        lately = _joined(steps[BEFORE:])
        if self._lowest is None or before.mean < self._lowest.mean:
            self._lowest = before
        if self._is_jump(lately, self._lowest):
            yield Finding(
                self._verdict.value,
                f"the share of responses with the verdict `{self._verdict.value}` is {lately.mean:.0%} over"
                f" the last {LATELY} steps, and was {self._lowest.mean:.0%}: {_CAUSE[self._verdict]}",
            )

    def _from_the_start(self, steps: Sequence[_Share]) -> Iterator[Finding]:
        """A share so large in the run's first steps that there is nothing to compare it with."""
        if self._verdict not in (Verdict.ERROR, Verdict.TIMEOUT) or len(steps) != LATELY:
            return
        share = _joined(steps).mean
        if share >= _FROM_THE_START:
            yield Finding(
                self._verdict.value,
                f"the share of responses with the verdict `{self._verdict.value}` is {share:.0%} over the"
                f" first {LATELY} steps: {_CAUSE[self._verdict]}",
            )

    def _is_jump(self, lately: _Share, before: _Share) -> bool:
        spread = math.sqrt(lately.variance + before.variance)
        margin = max(_MARGIN[self._verdict], _STANDARD_ERRORS * spread)
        return lately.mean - before.mean > margin


def _joined(shares: Sequence[_Share]) -> _Share:
    return _Share(
        sum(share.number for share in shares),
        sum(share.total for share in shares),
    )
