"""Statistics of sampled answers: pass@k, and confidence intervals of means over problems.

Shapes: P problems, R resamples, S statistics.
"""

from __future__ import annotations

from math import comb

import numpy as np

RESAMPLES = 2000
"""Bootstrap samples of an interval."""


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Return the unbiased estimate of the probability that at least one of `k` samples is right.

    The estimate comes from `num_samples` samples, of which `num_right` are right.

    Source: Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    assert 1 <= k <= num_samples, f"pass@{k} needs as many samples, not {num_samples}"
    num_wrong = num_samples - num_right
    all_wrong = comb(num_wrong, k) / comb(num_samples, k)
    return 1.0 - all_wrong


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
