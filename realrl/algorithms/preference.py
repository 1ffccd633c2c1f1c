"""Losses over pairs of a better and a worse response.

Shapes: P pairs; each tensor is `[P]`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return minus the log-probability that the chosen response is preferred, given both scores.

    Shapes: returns `[P]`.
    Source: Ouyang et al. 2022, arXiv:2203.02155, eq. 1.
    """
    return -F.logsigmoid(chosen - rejected)


def implicit_reward(logprobs: Tensor, ref_logprobs: Tensor, *, beta: float) -> Tensor:
    """Return DPO's score of each response: `beta` times its log-ratio of the policy and the reference.

    DPO's loss is `bradley_terry_loss` of these scores.

    Shapes: log-probabilities of whole responses `[P]`; returns `[P]`.
    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 7.
    """
    return beta * (logprobs - ref_logprobs)
