"""MaxRL: rewards relative to the mean of their group (Tajwar et al. 2026, arXiv:2602.02710, algorithm 1).

realrl grpo advantage=examples/estimator.py:maxrl actor.model.path=MODEL data.path=problems.jsonl
"""

from torch import Tensor

from realrl.algorithms.advantages import Scored


def maxrl(scored: Scored) -> Tensor:
    """Return advantages `[T]`: a right answer counts more the rarer its problem is solved.

    For rewards of 1 and 0, as the paper has them; a problem that is never solved teaches nothing.
    """
    mean = scored.group_mean(scored.rewards)
    gain = (scored.rewards - mean) / mean.clamp(min=1e-6)
    return scored.to_go(gain.where(scored.counts, 0.0))
