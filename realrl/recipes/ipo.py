"""IPO: identity preference optimisation (Azar et al. 2023, arXiv:2310.12036).

ref_inf ──▶ train
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.base.require import require
from realrl.recipes import parts
from realrl.recipes.parts.pair_recipe import ReferredPairConfig, pair_recipe

if TYPE_CHECKING:
    from realrl.recipes.parts.pairs import PairLosses, Responses


@dataclass(frozen=True, kw_only=True)
class IPOConfig(ReferredPairConfig):
    """Identity preference optimisation on pairs of responses."""

    experiment: str = "ipo"
    beta: float = 0.1
    """How far the model may move from the reference: log-ratios, by token, are to differ by `1 / (2 * beta)`.
    The paper calls it tau."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive, got {self.beta}")


def losses(config: IPOConfig, responses: Responses) -> PairLosses:
    """Return the loss of each pair (eq. 17).

    The paper writes log-ratios of whole responses. As in TRL, whose authors asked the paper's, here they are
    means over a response's tokens.
    """
    log_ratios = responses.mean_logprobs - responses.mean_ref_logprobs
    chosen, rejected = parts.pairs.sides(log_ratios)
    found = algorithms.preference.ipo_loss(chosen, rejected, beta=config.beta)
    return parts.pairs.PairLosses(found, scores=log_ratios)


IPO = pair_recipe("ipo", IPOConfig(), losses=losses)
