"""Statistics of sampled answers: pass@k, majority votes, and confidence intervals of means over problems.

Shapes: P problems, R resamples, S statistics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import comb
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


class Interval(NamedTuple):
    """A mean over problems, and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Return the unbiased estimate of the probability that at least one of `k` samples is right.

    The estimate comes from `num_samples` samples, of which `num_right` are right.

    Source: Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    assert 1 <= k <= num_samples, f"pass@{k} needs as many samples, not {num_samples}"
    num_wrong = num_samples - num_right
    all_wrong = comb(num_wrong, k) / comb(num_samples, k)
    return 1.0 - all_wrong


def majority(votes: Sequence[Hashable | None], right: Hashable) -> float:
    """Return the probability that the answer with the most votes is the right one.

    None is no vote. Of answers with equally many votes, one is drawn at random. Without any vote, the answer
    is not right.
    """
    counts = Counter(vote for vote in votes if vote is not None)
    most = max(counts.values(), default=0)
    winners = [answer for answer, count in counts.items() if count == most]
    return 1 / len(winners) if right in winners else 0.0


def powers_of_two(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to `most`, and `most` itself."""
    powers = []
    power = 1
    while power < most:
        powers.append(power)
        power *= 2
    if most > 0:
        powers.append(most)
    return powers


def bootstrap_intervals(
    values: np.ndarray, *, level: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper ends of a confidence interval for the mean over problems.

    Shapes: values `[P, S]`; returns two `[S]`.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3: percentile intervals.
    """
    number = len(values)
    generator = np.random.default_rng(seed)
    probabilities = np.full(number, 1 / number)
    drawn = generator.multinomial(number, probabilities, size=RESAMPLES)
    shares = drawn / number
    means = shares @ values
    lower_end = (1 - level) / 2
    upper_end = (1 + level) / 2
    lower, upper = np.quantile(
        means,
        [lower_end, upper_end],
        axis=0,
    )
    return lower, upper


def mean_intervals(columns: Mapping[str, Sequence[float]]) -> dict[str, Interval]:
    """Return the mean over problems of each column with its 95 % interval; all columns are resampled alike.

    Each column has a number per problem, at least one.
    """
    # The bootstrap draws rows: the problems.
    values = np.array(list(columns.values())).T
    means = values.mean(axis=0)
    lows, highs = bootstrap_intervals(values)
    found = {}
    for index, name in enumerate(columns):
        found[name] = Interval(float(means[index]), float(lows[index]), float(highs[index]))
    return found
