"""Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290).

ref_inf ──▶ train
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from realrl import algorithms
from realrl.base.require import require, require_not_negative
from realrl.recipes import parts
from realrl.recipes.parts.pair_recipe import ReferredPairConfig, pair_recipe

if TYPE_CHECKING:
    from realrl.recipes.parts.pairs import PairLosses, Responses


@dataclass(frozen=True, kw_only=True)
class DPOConfig(ReferredPairConfig):
    """Direct preference optimisation on pairs of responses."""

    experiment: str = "dpo"
    beta: float = 0.1
    """How far the model may move from the reference: the less, the further."""
    length_normalised: bool = False
    """Take the mean over each response's tokens in place of the sum, as Tulu 3 does with a `beta` of 5
    (arXiv:2411.15124, eq. 6)."""
    smoothing: float = 0.0
    """The probability that a pair is labelled the wrong way round (conservative DPO)."""
    sft_coef: float = 0.0
    """Weight of learning the chosen response too, by the mean over its tokens (RPO, arXiv:2404.19733: 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.beta > 0, f"beta must be positive, got {self.beta}")
        require(
            0 <= self.smoothing < 0.5,
            f"smoothing must be from 0 to below 0.5, got {self.smoothing}; with more, most labels would be"
            " wrong: exchange chosen and rejected (data.fields)",
        )
        require_not_negative(self, "sft_coef")


def losses(config: DPOConfig, responses: Responses) -> PairLosses:
    """Return the loss of each pair, of the implicit rewards of its responses (eq. 7)."""
    own = responses.mean_logprobs if config.length_normalised else responses.logprobs
    ref = responses.mean_ref_logprobs if config.length_normalised else responses.ref_logprobs
    scores = algorithms.preference.implicit_reward(own, ref, beta=config.beta)
    chosen, rejected = parts.pairs.sides(scores)
    found = algorithms.preference.bradley_terry_loss(chosen, rejected, smoothing=config.smoothing)
    if not config.sft_coef:
        return parts.pairs.PairLosses(found, scores)
    mean_logprobs, _ = parts.pairs.sides(responses.mean_logprobs)
    chosen_nll = -mean_logprobs
    return parts.pairs.PairLosses(
        found + config.sft_coef * chosen_nll,
        scores,
        terms={"chosen_nll": chosen_nll},
    )


DPO = pair_recipe("dpo", DPOConfig(), losses=losses)
