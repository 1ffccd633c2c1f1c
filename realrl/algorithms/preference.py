"""Losses over pairs of a better and a worse response.

Shapes: P pairs; each tensor is `[P]`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Minus the log-probability that the chosen response is preferred, given both scores: `[P]`.

    Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1.
    """
    return -F.logsigmoid(chosen - rejected)


def implicit_reward(logprobs: Tensor, ref_logprobs: Tensor, *, beta: float) -> Tensor:
    """The score that DPO gives a response: `beta` times how much likelier than under the reference it is.

    Shapes: log-probabilities of whole responses.
    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7, which is the loss above of such scores.
    """
    return beta * (logprobs - ref_logprobs)
