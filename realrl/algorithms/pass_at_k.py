"""What samples of answers say of a model: pass@k, and how sure a mean over problems is.

Shapes: P problems, R resamples, S statistics.
"""

from __future__ import annotations

from math import comb

import numpy as np

RESAMPLES = 2000


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """The chance that one of `k` samples is right, by the `num_right` of `num_samples` that are: unbiased.

    Source: Chen et al. 2021, arXiv:2107.03374, eq. 1.
    """
    assert 1 <= k <= num_samples, f"pass@{k} needs as many samples, not {num_samples}"
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself."""
    return sorted({*(1 << i for i in range(most.bit_length())), most} - {0})


def bootstrap_intervals(
    values: np.ndarray, *, level: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends, `[S]` each, of an interval for each mean over problems of `values [P, S]`.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3: percentile intervals.
    """
    number = len(values)
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=RESAMPLES)
    means = (drawn / number) @ values
    return tuple(np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0))
