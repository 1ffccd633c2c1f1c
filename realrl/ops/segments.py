"""Packed tokens in segments, and which of them see which."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Runs of packed tokens; a token sees all of its segment's prefix, then its own segment up to itself.

    Samples of one prompt are a segment each, and the prompt their prefix. Shapes: S segments, T tokens.
    """

    cu_seqlens: Tensor
    """int32 `[S + 1]` on the host: where each segment begins, and the last one ends."""
    prefix: Tensor
    """int32 `[S]` on the host: an earlier segment without a prefix of its own, or -1."""

    def __post_init__(self) -> None:
        for name, tensor in (("cu_seqlens", self.cu_seqlens), ("prefix", self.prefix)):
            assert tensor.is_cpu and tensor.dtype == torch.int32, f"{name} must be int32 on the host"
            assert tensor.is_contiguous(), f"{name} must be contiguous"
        assert len(self.cu_seqlens) == len(self.prefix) + 1, "expected one bound more than segments"
        assert int(self.cu_seqlens[0]) == 0 and not bool((self.lengths < 0).any()), (
            "bounds must ascend from 0"
        )
        seen = self.prefix.long()
        assert bool(((seen >= -1) & (seen < torch.arange(len(seen)))).all()), (
            "a prefix stands before its segments"
        )
        assert bool((seen[seen[seen >= 0]] == -1).all()), "a prefix has none of its own"

    @staticmethod
    def of_sequences(cu_seqlens: Tensor) -> Segments:
        """Sequences that share nothing."""
        return Segments(cu_seqlens, torch.full((len(cu_seqlens) - 1,), -1, dtype=torch.int32))

    def __len__(self) -> int:
        return len(self.prefix)

    @cached_property
    def lengths(self) -> Tensor:
        """int32 `[S]`."""
        return self.cu_seqlens.diff()

    @cached_property
    def prefix_lengths(self) -> Tensor:
        """int32 `[S]`, 0 without a prefix."""
        seen = self.prefix.long()
        return torch.where(seen >= 0, self.lengths[seen], 0)

    def positions(self) -> Tensor:
        """Each token's place in its sequence, prefix included: int64 `[T]`."""
        offsets = self.prefix_lengths.long() - self.cu_seqlens[:-1].long()
        return torch.arange(int(self.cu_seqlens[-1])) + offsets.repeat_interleave(self.lengths.long())

    def bounds(self) -> list[tuple[int, int, int]]:
        """Each segment's first token, its end, and its prefix."""
        ends = self.cu_seqlens.tolist()
        return list(zip(ends, ends[1:], self.prefix.tolist()))
