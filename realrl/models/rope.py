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
    """The angles by which the pairs of a head's elements turn with the position."""

    theta: float = 10000.0
    kind: RopeKind = "default"
    factor: float = 1.0
    """The length of the context, as a multiple of the original one."""
    original_max_position: int = 0
    low_freq_factor: float = 1.0
    """`llama3`: pairs that turn less often than this over the original context are slowed by `factor`."""
    high_freq_factor: float = 4.0
    """`llama3`: pairs that turn more often than this are unchanged."""
    beta_fast: float = 32.0
    """`yarn`: pairs that turn more often than this over the original context are unchanged."""
    beta_slow: float = 1.0
    """`yarn`: pairs that turn less often than this are slowed by `factor`."""
    truncate: bool = True
    """`yarn`: the two bounds are rounded to whole pairs."""
    attention_factor: float = 1.0
    """The factor of cosines and sines."""


class Rotary:
    """Cosines and sines of the angles, on the device where they are asked for."""

    def __init__(self, rope: Rope, head_dim: int) -> None:
        self.frequencies = inverse_frequencies(rope, head_dim)
        self._factor = rope.attention_factor

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines at positions: `[T]` to float32 `[T, head_dim / 2]` each."""
        if self.frequencies.device != positions.device:
            self.frequencies = self.frequencies.to(positions.device)

        column = positions[:, None].float()
        angles = column * self.frequencies
        cos = angles.cos() * self._factor
        sin = angles.sin() * self._factor
        return cos, sin


def inverse_frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Return how far each pair turns per position, in radians: float32 `[head_dim / 2]`.

    Source: `linear`, Chen et al. 2023, arXiv:2306.15595; `llama3`, the reference code of Llama 3.1;
        `yarn`, Peng et al. 2023, arXiv:2309.00071, section 3.2.
    """
    even = torch.arange(0, head_dim, 2, dtype=torch.int64)
    pairs = even.float() / head_dim
    frequencies = 1.0 / rope.theta**pairs
    if rope.kind == "linear":
        return frequencies / rope.factor
    if rope.kind == "llama3":
        return _slow_by_wavelength(rope, frequencies)
    if rope.kind == "yarn":
        return _slow_by_index(rope, frequencies, head_dim)
    return frequencies


def yarn_attention_factor(factor: float) -> float:
    """Return YaRN's temperature (arXiv:2309.00071, eq. 22), as a factor of both queries and keys."""
    if factor <= 1:
        return 1.0
    return 0.1 * math.log(factor) + 1.0


def _slow_by_wavelength(rope: Rope, frequencies: Tensor) -> Tensor:
    """Slow pairs that turn rarely over the original context: `[head_dim / 2]` to `[head_dim / 2]`."""
    wavelengths = 2 * math.pi / frequencies
    turns = rope.original_max_position / wavelengths
    above_low = turns - rope.low_freq_factor
    kept = above_low / (rope.high_freq_factor - rope.low_freq_factor)
    return _mixed(frequencies, rope.factor, kept.clamp(0, 1))


def _slow_by_index(rope: Rope, frequencies: Tensor, head_dim: int) -> Tensor:
    """Slow pairs with a large index: `[head_dim / 2]` to `[head_dim / 2]`."""
    low = _pair_that_turns(rope, head_dim, rope.beta_fast)
    high = _pair_that_turns(rope, head_dim, rope.beta_slow)
    if rope.truncate:
        low = math.floor(low)
        high = math.ceil(high)

    low = max(low, 0)
    high = min(high, head_dim - 1)
    # The small width of an empty ramp avoids a division by zero, as in transformers.
    width = high - low if high > low else 0.001
    index = torch.arange(head_dim // 2, dtype=torch.float32)
    slowed = ((index - low) / width).clamp(0, 1)
    return _mixed(frequencies, rope.factor, 1 - slowed)


def _pair_that_turns(rope: Rope, head_dim: int, turns: float) -> float:
    """Return the index of the pair that turns this often over the original context."""
    wavelength = rope.original_max_position / (turns * 2 * math.pi)
    log_base = 2 * math.log(rope.theta)
    return head_dim * math.log(wavelength) / log_base


def _mixed(frequencies: Tensor, factor: float, kept: Tensor) -> Tensor:
    """Slow each frequency by `factor`, except for the share `kept` of it: each `[head_dim / 2]`."""
    own = frequencies * kept
    slowed = frequencies / factor * (1 - kept)
    return own + slowed
