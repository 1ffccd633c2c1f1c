"""Rotary position embeddings and the ways of stretching them to longer contexts.

Source: Su et al. 2021, arXiv:2104.09864, eq. 15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

RopeKind = Literal["default", "linear", "llama3", "yarn"]


@dataclass(frozen=True, kw_only=True)
class Rope:
    """How fast each pair of a head's elements turns with the position."""

    theta: float = 10000.0
    kind: RopeKind = "default"
    factor: float = 1.0
    """How many times longer the context is than the original one."""
    original_max_position: int = 0
    low_freq_factor: float = 1.0
    """`llama3`: pairs that turn less often than this over the original context are slowed by `factor`."""
    high_freq_factor: float = 4.0
    """`llama3`: those that turn more often than this are left alone."""
    beta_fast: float = 32.0
    """`yarn`: pairs that turn more often than this over the original context are left alone."""
    beta_slow: float = 1.0
    """`yarn`: those that turn less often than this are slowed by `factor`."""
    truncate: bool = True
    """`yarn`: those bounds are taken at whole pairs."""
    attention_factor: float = 1.0
    """What cosines and sines are multiplied by."""


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians a position of each pair: float32 `[head_dim / 2]`.

    Source: `linear`, Chen et al. 2023, arXiv:2306.15595; `llama3`, the reference code of Llama 3.1;
        `yarn`, Peng et al. 2023, arXiv:2309.00071, section 3.2.
    """
    pairs = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / rope.theta**pairs
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        return _slow_by_wavelength(rope, frequencies)
    if rope.kind == "yarn":
        return _slow_by_index(rope, frequencies, head_dim)
    return frequencies


def yarn_attention_factor(factor: float) -> float:
    """YaRN's temperature (arXiv:2309.00071, eq. 22), as a factor of both queries and keys."""
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _slow_by_wavelength(rope: Rope, frequencies: Tensor) -> Tensor:
    turns = rope.original_max_position / (2 * math.pi / frequencies)
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    return _mixed(frequencies, rope.factor, kept.clamp(0, 1))


def _slow_by_index(rope: Rope, frequencies: Tensor, head_dim: int) -> Tensor:
    def pair_that_turns(turns: float) -> float:
        """Which pair, counted in elements of half a head, turns so often over the original context."""
        wavelength = rope.original_max_position / (turns * 2 * math.pi)
        return head_dim * math.log(wavelength) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    index = torch.arange(head_dim // 2, dtype=torch.float32)
    slowed = ((index - low) / (high - low if high > low else 0.001)).clamp(0, 1)
    return _mixed(frequencies, rope.factor, 1 - slowed)


def _mixed(frequencies: Tensor, factor: float, kept: Tensor) -> Tensor:
    return frequencies * kept + frequencies / factor * (1 - kept)
