"""Packed tokens in segments, and which of them see which."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from realrl.ops.upload import upload

Kept = TypeVar("Kept")


class Bounds(NamedTuple):
    """Where the queries and the keys of each of some sequences begin among theirs, and the last ones end.

    Shapes: int32 `[sequences + 1]`, on a device.
    """

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int


class PrefixIndex(NamedTuple):
    """Which tokens see a prefix: those of one prefix are one sequence of queries, the prefix its keys.

    Shapes: C tokens that see a prefix, P tokens of prefixes; both int64, on a device.
    """

    tokens: Tensor
    prefix_tokens: Tensor
    bounds: Bounds


class SegmentIndex(NamedTuple):
    """What kernels need of segments, on a device."""

    positions: Tensor
    """Each token's place in its sequence, prefix included: int64 `[T]`."""
    own: Bounds
    """Of the segments themselves, each of which sees itself."""
    prefixed: PrefixIndex | None
    """None where no token sees a prefix."""


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

    @cached_property
    def has_prefix(self) -> bool:
        """Whether a segment has a prefix."""
        return bool((self.prefix >= 0).any())

    def on(self, device: torch.device | str) -> SegmentIndex:
        """The segments as the kernels of a device want them; made once, and copied without a wait."""
        device = torch.device(device)
        return self.kept(("index", device), lambda: self._index_on(device))

    def kept(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """What was made of the segments for a key, once for all layers."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def _index_on(self, device: torch.device) -> SegmentIndex:
        lengths, (queries, prefixes, whose) = self.lengths.long(), self._with_prefix()
        num_queries = torch.zeros(len(prefixes), dtype=torch.long).index_add_(0, whose, lengths[queries])
        num_keys = lengths[prefixes]
        own = self.positions(), self.cu_seqlens
        shared = self._tokens(queries), self._tokens(prefixes), _starts(num_queries), _starts(num_keys)
        positions, starts, tokens, prefix_tokens, *shared_starts = upload((*own, *shared), device)
        bounds = Bounds(starts, starts, _longest(lengths), _longest(lengths))
        if not len(queries):
            return SegmentIndex(positions, bounds, None)
        shared_bounds = Bounds(*shared_starts, _longest(num_queries), _longest(num_keys))
        return SegmentIndex(positions, bounds, PrefixIndex(tokens, prefix_tokens, shared_bounds))

    def _with_prefix(self) -> tuple[Tensor, Tensor, Tensor]:
        """Segments that see a prefix, ordered by it; these prefixes; which of them each segment sees."""
        found = ((self.prefix_lengths > 0) & (self.lengths > 0)).nonzero()[:, 0]
        found = found[self.prefix[found].argsort(stable=True)]
        prefixes, whose = self.prefix[found].long().unique_consecutive(return_inverse=True)
        return found, prefixes, whose

    def _tokens(self, segments: Tensor) -> Tensor:
        """The tokens of some segments, one segment behind another: int64."""
        starts, lengths = self.cu_seqlens[:-1].long()[segments], self.lengths.long()[segments]
        before = lengths.cumsum(0) - lengths
        return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)

    def positions(self) -> Tensor:
        """Each token's place in its sequence, prefix included: int64 `[T]`."""
        offsets = self.prefix_lengths.long() - self.cu_seqlens[:-1].long()
        return torch.arange(int(self.cu_seqlens[-1])) + offsets.repeat_interleave(self.lengths.long())

    def bounds(self) -> list[tuple[int, int, int]]:
        """Each segment's first token, its end, and its prefix."""
        ends = self.cu_seqlens.tolist()
        return list(zip(ends, ends[1:], self.prefix.tolist()))


def _starts(lengths: Tensor) -> Tensor:
    """Where runs of these lengths begin, and the last one ends: int32."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def _longest(lengths: Tensor) -> int:
    return int(lengths.max()) if len(lengths) else 0
