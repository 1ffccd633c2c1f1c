"""Segments of packed tokens, and the tokens that each of them sees."""

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
    """The bounds of sequences in a run of queries and in a run of keys, as variable-length kernels take them.

    Each tensor holds the start of every sequence and the end of the last one.

    Shapes: int32 `[sequences + 1]`, on a device.
    """

    queries: Tensor
    keys: Tensor
    longest_queries: int
    longest_keys: int


class PrefixIndex(NamedTuple):
    """The tokens that see a prefix; all tokens of one prefix form a sequence of queries, with it as the keys.

    Shapes: C tokens that see a prefix, P tokens of prefixes; both int64, on a device.
    """

    tokens: Tensor
    prefix_tokens: Tensor
    bounds: Bounds


class SegmentIndex(NamedTuple):
    """The tensors that kernels need to describe segments, on a device."""

    positions: Tensor
    """The position of each token in its sequence, prefix included: int64 `[T]`."""
    own: Bounds
    """The bounds of the segments, each of which sees itself."""
    prefixed: PrefixIndex | None
    """The tokens that see a prefix; None if no token does."""


@dataclass(frozen=True)
class Segments:
    """Runs of packed tokens, some of which share a prefix.

    A token sees all of its segment's prefix, and its own segment up to itself. For example, a prompt is the
    prefix of its samples, which are a segment each.

    Shapes: S segments, T tokens.
    """

    cu_seqlens: Tensor
    """The start of each segment and the end of the last one: int32 `[S + 1]` on the host."""
    prefix: Tensor
    """The index of each segment's prefix, or -1: int32 `[S]` on the host.

    A prefix is an earlier segment without a prefix of its own.
    """

    def __post_init__(self) -> None:
        _check_host("cu_seqlens", self.cu_seqlens)
        _check_host("prefix", self.prefix)
        num_segments = len(self.prefix)
        assert len(self.cu_seqlens) == num_segments + 1, "expected one bound more than segments"
        starts_at_zero = int(self.cu_seqlens[0]) == 0
        ascends = not bool((self.lengths < 0).any())
        assert starts_at_zero and ascends, "bounds must ascend from 0"

        seen = self.prefix.long()
        is_earlier = seen < torch.arange(num_segments)
        assert bool(((seen >= -1) & is_earlier).all()), "a prefix stands before its segments"
        prefixes = seen[seen >= 0]
        assert bool((seen[prefixes] == -1).all()), "a prefix has none of its own"

    @staticmethod
    def of_sequences(cu_seqlens: Tensor) -> Segments:
        """Return segments without prefixes.

        Shapes: cu_seqlens int32 `[S + 1]` on the host.
        """
        no_prefix = torch.full((len(cu_seqlens) - 1,), -1, dtype=torch.int32)
        return Segments(cu_seqlens, no_prefix)

    def __len__(self) -> int:
        return len(self.prefix)

    @cached_property
    def lengths(self) -> Tensor:
        """The number of tokens of each segment: int32 `[S]`."""
        return self.cu_seqlens.diff()

    @cached_property
    def prefix_lengths(self) -> Tensor:
        """The number of tokens of each segment's prefix, 0 without one: int32 `[S]`."""
        seen = self.prefix.long()
        return torch.where(seen >= 0, self.lengths[seen], 0)

    @cached_property
    def has_prefix(self) -> bool:
        """Whether a segment has a prefix."""
        return bool((self.prefix >= 0).any())

    def on(self, device: torch.device | str) -> SegmentIndex:
        """Return the tensors that a device's kernels need, built once and copied without a wait."""
        device = torch.device(device)
        key = "index", device
        return self.kept(key, lambda: self._index_on(device))

    def kept(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return `make()`, called once for each key; all layers share the result."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    @cached_property
    def _made(self) -> dict[Hashable, Any]:
        return {}

    def _index_on(self, device: torch.device) -> SegmentIndex:
        lengths = self.lengths.long()
        queries, prefixes, prefix_of_query = self._with_prefix()
        num_queries = torch.zeros(len(prefixes), dtype=torch.long)
        num_queries.index_add_(0, prefix_of_query, lengths[queries])
        num_keys = lengths[prefixes]
        host = (
            self.positions(),
            self.cu_seqlens,
            self._tokens(queries),
            self._tokens(prefixes),
            _starts(num_queries),
            _starts(num_keys),
        )
        # One upload, because each has a fixed cost.
        positions, starts, tokens, prefix_tokens, query_starts, key_starts = upload(host, device)

        longest = _longest(lengths)
        own = Bounds(starts, starts, longest, longest)
        if not len(queries):
            return SegmentIndex(positions, own, None)
        bounds = Bounds(
            query_starts,
            key_starts,
            _longest(num_queries),
            _longest(num_keys),
        )
        prefixed = PrefixIndex(tokens, prefix_tokens, bounds)
        return SegmentIndex(positions, own, prefixed)

    def _with_prefix(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the segments that see a prefix, sorted by it; the prefixes; and each segment's prefix.

        The last is an index into the prefixes.
        """
        sees_tokens = (self.prefix_lengths > 0) & (self.lengths > 0)
        found = sees_tokens.nonzero()[:, 0]
        by_prefix = self.prefix[found].argsort(stable=True)
        found = found[by_prefix]
        prefix = self.prefix[found].long()
        prefixes, prefix_of_segment = prefix.unique_consecutive(return_inverse=True)
        return found, prefixes, prefix_of_segment

    def _tokens(self, segments: Tensor) -> Tensor:
        """Return the tokens of some segments, concatenated: int64."""
        starts = self._first_tokens()[segments]
        lengths = self.lengths.long()[segments]
        before = lengths.cumsum(0) - lengths
        offsets = starts - before
        shifts = offsets.repeat_interleave(lengths)
        num_tokens = int(lengths.sum())
        return torch.arange(num_tokens) + shifts

    def _first_tokens(self) -> Tensor:
        """Return the first token of each segment: int64 `[S]`."""
        return self.cu_seqlens[:-1].long()

    def positions(self) -> Tensor:
        """Return the position of each token in its sequence, prefix included: int64 `[T]`."""
        offsets = self.prefix_lengths.long() - self._first_tokens()
        lengths = self.lengths.long()
        shifts = offsets.repeat_interleave(lengths)
        num_tokens = int(self.cu_seqlens[-1])
        return torch.arange(num_tokens) + shifts

    def bounds(self) -> list[tuple[int, int, int]]:
        """Return the first token, the end and the prefix of each segment."""
        bounds = self.cu_seqlens.tolist()
        prefixes = self.prefix.tolist()
        return list(zip(bounds, bounds[1:], prefixes))


def _starts(lengths: Tensor) -> Tensor:
    """Return the start of each of consecutive runs, and the end of the last one: int32."""
    ends = lengths.cumsum(0)
    starts = torch.nn.functional.pad(ends, (1, 0))
    return starts.to(torch.int32)


def _longest(lengths: Tensor) -> int:
    if not len(lengths):
        return 0
    return int(lengths.max())


def _check_host(name: str, tensor: Tensor) -> None:
    assert tensor.is_cpu and tensor.dtype == torch.int32, f"{name} must be int32 on the host"
    assert tensor.is_contiguous(), f"{name} must be contiguous"
