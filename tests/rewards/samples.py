"""Responses as reward functions see them, for tests of rewards."""

from __future__ import annotations

from typing import Any

import torch

from realrl.rewards.samples import RewardSample, Turn


def sample_of(response: str, *, num_tokens: int | None = None, **others: Any) -> RewardSample:
    """Return a response to `3+4=`, of one token for each character unless a number is given."""
    length = len(response) if num_tokens is None else num_tokens
    tokens = torch.arange(length)
    given = {
        "prompt": "3+4=",
        "solutions": ["7"],
        "metadata": {},
        "ended": True,
        "turns": (Turn(text=response, tokens=tokens),),
    }
    return RewardSample(response=response, tokens=tokens, **{**given, **others})


def group_of(*responses: RewardSample) -> list[RewardSample]:
    """Return the same responses as a group: each knows all."""
    group: list[RewardSample] = []
    for response in responses:
        fields = {**vars(response), "group": group}
        group.append(RewardSample(**fields))
    return group
