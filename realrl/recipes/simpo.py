"""SimPO: simple preference optimisation (Meng et al. 2024, arXiv:2405.14734). There is no reference.

train
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.base.require import require, require_not_negative
from realrl.recipes import parts
from realrl.recipes.parts.pair_recipe import PairConfig, pair_recipe

if TYPE_CHECKING:
    from realrl.recipes.parts.pairs import PairLosses, Responses


@dataclass(frozen=True, kw_only=True)
class SimPOConfig(PairConfig):
    """Simple preference optimisation on pairs of responses, without a reference."""

    experiment: str = "simpo"
    beta: float = 2.0
    """Scale of a response's reward, the mean log-probability of its tokens; from 2 to 10 in the paper."""
    margin: float = 1.0
    """By how much the chosen response's reward is to be the greater one; the paper's gamma, about half of
    `beta`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive, got {self.beta}")
        require_not_negative(self, "margin")


def losses(config: SimPOConfig, responses: Responses) -> PairLosses:
    """Return the loss of each pair (eq. 6)."""
    mean_logprobs = responses.mean_logprobs
    chosen, rejected = parts.pairs.sides(mean_logprobs)
    found = algorithms.preference.simpo_loss(chosen, rejected, beta=config.beta, margin=config.margin)
    return parts.pairs.PairLosses(found, scores=config.beta * mean_logprobs)


SIMPO = pair_recipe("simpo", SimPOConfig(), losses=losses)
