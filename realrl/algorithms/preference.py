"""Losses over pairs of a better and a worse response, under the names of their papers.

A score of a response is what a reward model gives, or what a policy's log-probability says of it: against a
reference (`implicit_reward`), or alone, by token (SimPO, ORPO).

Shapes: P pairs; each tensor is `[P]`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_UNCERTAINTY = 1e-9
"""How far the log-probability of a response is from 0, at least, in odds."""


def bradley_terry_loss(
    chosen: Tensor, rejected: Tensor, *, margin: Tensor | float = 0.0, smoothing: float = 0.0
) -> Tensor:
    """Return minus the log-probability that the chosen response is preferred, given both scores.

    The chosen score must be greater by `margin`. `smoothing` is the probability that a pair is labelled the
    wrong way round.

    Shapes: a margin of each pair is `[P]`; returns `[P]`.
    Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1; margins, Touvron et al. 2023, arXiv:2307.09288, eq. 2
        (Llama 2); smoothing, Mitchell 2023, "A note on DPO with noisy preferences" (conservative DPO).
    """
    difference = chosen - rejected - margin
    loss = -F.logsigmoid(difference)
    if not smoothing:
        return loss
    of_the_other = -F.logsigmoid(-difference)
    return (1 - smoothing) * loss + smoothing * of_the_other


def implicit_reward(logprobs: Tensor, ref_logprobs: Tensor, *, beta: float) -> Tensor:
    """Return DPO's score of each response: `beta` times its log-ratio of the policy and the reference.

    DPO's loss is `bradley_terry_loss` of these scores.

    Shapes: log-probabilities of whole responses, or their means over tokens, `[P]`; returns `[P]`.
    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7; by token, Lambert et al. 2024, arXiv:2411.15124,
        eq. 6 (Tulu 3's length-normalised DPO).
    """
    return beta * (logprobs - ref_logprobs)


def ipo_loss(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """Return the squared distance of the difference of two log-ratios from `1 / (2 * beta)`.

    Shapes: log-ratios of the policy and the reference `[P]`; returns `[P]`.
    Source: Azar et al. 2023, arXiv:2310.12036, eq. 17.
    """
    difference = chosen - rejected
    return (difference - 1 / (2 * beta)).square()


def simpo_loss(chosen: Tensor, rejected: Tensor, *, beta: float, margin: float) -> Tensor:
    """Return the Bradley-Terry loss of `beta` times mean log-probabilities, with a margin; no reference.

    Shapes: means over each response's tokens `[P]`; returns `[P]`.
    Source: Meng et al. 2024, arXiv:2405.14734, eq. 6.
    """
    return bradley_terry_loss(beta * chosen, beta * rejected, margin=margin)


def odds_ratio_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return minus the log-sigmoid of the log of the odds of the chosen over those of the rejected response.

    ORPO adds it, times lambda, to the loss of learning the chosen response.

    Shapes: mean log-probabilities over each response's tokens, below 0, `[P]`; returns `[P]`.
    Source: Hong et al. 2024, arXiv:2403.07691, eq. 7.
    """
    return bradley_terry_loss(_log_odds(chosen), _log_odds(rejected))


def kto_loss(log_ratios: Tensor, is_desirable: Tensor, kl: Tensor | float, *, beta: float) -> Tensor:
    """Return 1 less the value of each response, desirable or not, by itself.

    `kl` is what the policy has moved from the reference over the batch, which is not trained on: the mean of
    log-ratios of responses to other prompts, at least 0.

    Shapes: log-ratios of the policy and the reference and bool is_desirable `[P]`; returns `[P]`.
    Source: Ethayarajh et al. 2024, arXiv:2402.01306, eq. 8.
    """
    gain = beta * (log_ratios - kl)
    return 1 - torch.where(is_desirable, gain, -gain).sigmoid()


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the square of the sum of two scores, whose mean a reward model then keeps near 0.

    Shapes: returns `[P]`.
    Source: Eisenstein et al. 2023, arXiv:2312.09244, sec. 3.1.
    """
    return (chosen + rejected).square()


def _log_odds(logprobs: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of log-probabilities below 0."""
    # A certain response has the odds of a nearly certain one.
    one_less = -logprobs.clamp(max=-_LEAST_UNCERTAINTY).expm1()
    return logprobs - one_less.log()
