"""Rewards for short right answers, from three papers: next to the verifier's, which they look at.

    realrl grpo reward="{math: 1.0, examples/length_rewards.py:kimi: 0.5}" …

Lengths are compared within a group: the responses to one prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from realrl.rewards.samples import RewardSample
from realrl.rewards.verdict import Verdict

LONGEST = 8192
"""Tokens at which `cosine` has its last value: `generation.max_new_tokens` of the run."""


def kimi(samples: list[RewardSample]) -> list[float]:
    """Return from 0.5 for the shortest response of a group to -0.5 for its longest; wrong ones gain nothing.

    Source: Kimi k1.5, arXiv:2501.12599, section 2.3.3.
    """
    return [_kimi(sample) for sample in samples]


def _kimi(sample: RewardSample) -> float:
    lengths = [len(other.tokens) for other in sample.group]
    shortest = min(lengths)
    longest = max(lengths)
    if shortest == longest:
        return 0.0
    share = (len(sample.tokens) - shortest) / (longest - shortest)
    reward = 0.5 - share
    return reward if is_right(sample) else min(0.0, reward)


def alp(samples: list[RewardSample]) -> list[float]:
    """Return minus the length, times the share of the group that is right: easy problems need few tokens.

    The paper's beta is the weight of this reward, as 1e-7.

    Source: Xiang et al. 2025, arXiv:2506.05256, eq. 1 (adaptive length penalty).
    """
    return [-len(sample.tokens) * _solve_rate(sample.group) for sample in samples]


def _solve_rate(group: Sequence[RewardSample]) -> float:
    num_right = sum(is_right(sample) for sample in group)
    # A problem that was never solved counts as solved once.
    return max(num_right, 1) / len(group)


def cosine(sample: RewardSample) -> float:
    """Return 2 for a short right answer down to 1 for a long one, and -10 for a short wrong one up to 0.

    With `math: 0` it is the whole reward. A response without an end gets -10.

    Source: Yeo et al. 2025, arXiv:2502.03373, section 4.2.
    """
    if not sample.ended:
        return -10.0
    at_start, at_end = (2.0, 1.0) if is_right(sample) else (-10.0, 0.0)
    share = len(sample.tokens) / LONGEST
    return at_end + 0.5 * (at_start - at_end) * (1 + math.cos(math.pi * share))


def is_right(sample: RewardSample) -> bool:
    """Return whether the verifier found the answer right; it is one of the run's rewards."""
    if sample.verdict is None:
        raise ValueError("give the verifier too, as reward={math: 1.0, examples/length_rewards.py:kimi: 0.5}")
    return sample.verdict is Verdict.CORRECT
