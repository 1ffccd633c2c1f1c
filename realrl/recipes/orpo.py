"""ORPO: odds ratio preference optimisation (Hong et al. 2024, arXiv:2403.07691). There is no reference.

train
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.api.config import OptimizerConfig
from realrl.base.require import require
from realrl.recipes import parts
from realrl.recipes.parts.pair_recipe import PairConfig, pair_recipe

if TYPE_CHECKING:
    from realrl.recipes.parts.pairs import PairLosses, Responses


@dataclass(frozen=True, kw_only=True)
class ORPOConfig(PairConfig):
    """Learn chosen responses, and make rejected ones less likely by the ratio of their odds; no reference."""

    experiment: str = "orpo"
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=8e-6))
    odds_ratio_coef: float = 0.1
    """Weight of the odds ratio's loss, which is added to that of learning the chosen response; the paper's
    lambda."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.odds_ratio_coef > 0, f"odds_ratio_coef must be positive, got {self.odds_ratio_coef}")


def losses(config: ORPOConfig, responses: Responses) -> PairLosses:
    """Return the loss of each pair (eq. 6): that of learning the chosen response, and the odds ratio's."""
    mean_logprobs = responses.mean_logprobs
    chosen, rejected = parts.pairs.sides(mean_logprobs)
    chosen_nll = -chosen
    odds_ratio_loss = algorithms.preference.odds_ratio_loss(chosen, rejected)
    return parts.pairs.PairLosses(
        chosen_nll + config.odds_ratio_coef * odds_ratio_loss,
        scores=mean_logprobs,
        terms={"chosen_nll": chosen_nll, "odds_ratio_loss": odds_ratio_loss},
    )


ORPO = pair_recipe("orpo", ORPOConfig(), losses=losses)
