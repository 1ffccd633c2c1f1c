"""Shaping of rewards, against the published piecewise form."""

from __future__ import annotations

import pytest
import torch

from realrl.algorithms.scores import overlong_penalty, shaped


def test_bias_then_scale_then_clip():
    rewards = torch.tensor([-3.0, 0.0, 1.0, 9.0])
    assert shaped(rewards, bias=1.0, scale=0.5, clip=2.0).tolist() == [-1.0, 0.5, 1.0, 2.0]
    assert shaped(rewards, bias=1.0, scale=0.5, clip=0.0).tolist() == [-1.0, 0.5, 1.0, 5.0]


@pytest.mark.parametrize("length", [0, 11, 12, 13, 15, 16, 20])
def test_the_overlong_penalty_is_dapos(length):
    """0 up to the buffer, then linear, then all of it: eq. 13 with L_max 16 and L_cache 4."""
    if length <= 12:
        expected = 0.0
    elif length <= 16:
        expected = ((16 - 4) - length) / 4
    else:
        expected = -1.0
    lengths = torch.tensor([length])
    found = overlong_penalty(lengths, max_tokens=16, buffer_tokens=4, penalty=1.0)
    assert found.tolist() == [expected]
    assert overlong_penalty(lengths, max_tokens=16, buffer_tokens=4, penalty=0.5).tolist() == [expected / 2]
