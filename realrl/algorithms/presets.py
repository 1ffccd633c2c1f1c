"""Combinations of settings that were published under a name, as configs read them: without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from realrl.algorithms.choices import CorrectionName, MaskBy, WeightBy

NO_BOUND = float("inf")


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What a token's loss is multiplied with."""

    weight: WeightBy = "none"
    """Whose importance weight: the token's own; its response's, the product of its tokens' weights or their
    geometric mean; or none, which is 1."""
    cap: float = NO_BOUND
    """The largest weight; a greater one is truncated."""
    mask: MaskBy = "none"
    """What is looked at to leave tokens out: the weight of a token, or of a response as a whole, by the
    product of its tokens' weights or by their geometric mean; or the divergence at a token. A response that
    is left out has no token in the loss."""
    low: float = 0.0
    """The least weight that is kept."""
    high: float = NO_BOUND
    """The largest weight, or the largest divergence, that is kept."""

    @property
    def has_bounds(self) -> bool:
        """Whether the mask can leave something out."""
        return self.low > 0 or self.high < NO_BOUND


CORRECTIONS: Mapping[CorrectionName, Correction] = {
    "none": Correction(),
    "tis": Correction(weight="token", cap=2.0),
    "sequence-tis": Correction(weight="sequence", cap=2.0),
    "sequence-mis": Correction(weight="sequence", mask="sequence", high=2.0),
    "icepop": Correction(weight="token", mask="token", low=0.5, high=5.0),
    "kpop": Correction(weight="token", mask="binary_kl", high=0.1),
    "geo-rs": Correction(mask="geometric", low=0.999, high=1.001),
    "seq-mask-tis": Correction(weight="token", cap=2.0, mask="geometric", low=0.999, high=1.001),
}
"""By the name that a config gives.

tis           truncated importance sampling by token (Yao et al. 2025, "Your efficient RL framework secretly
              brings you off-policy RL training"); with a cap of 5, AReaL's decoupled PPO (arXiv:2505.24298)
sequence-tis  the same by response (Liu et al. 2025, "When speed kills stability", sec. 4)
sequence-mis  responses with a weight above the bound are left out, others weighted (the same, sec. 4)
icepop        tokens outside of the two bounds are left out, others weighted (arXiv:2510.18855, eq. 3)
kpop          tokens whose divergence in either direction is above the bound are left out, others weighted
              (Guo et al. 2026, "Taming training-inference mismatch with adaptive masking regions")
geo-rs        rejection: responses by the geometric mean of their weights, no weights (verl's preset of 2025)
seq-mask-tis  rejection of responses, and truncated weights by token
"""
