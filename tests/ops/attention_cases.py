"""Random segments, and attention over them as a plain loop in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from realrl.ops.segments import Segments


@dataclass(frozen=True)
class Case:
    """Everything that attention depends on, but the numbers in qkv."""

    lengths: tuple[int, ...]
    prefix: tuple[int, ...]
    num_kv_heads: int
    group: int
    head_dim: int
    window: int | None
    softcap: float | None

    @property
    def segments(self) -> Segments:
        return Segments(bounds_of(self.lengths), torch.tensor(self.prefix, dtype=torch.int32))

    @property
    def rule(self) -> dict:
        return {"scale": self.head_dim**-0.5, "window": self.window, "softcap": self.softcap}

    def qkv(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """Heads of different sizes and signs, larger than unit normal so that weights are uneven."""
        heads = self.num_kv_heads * (self.group + 2)
        shape = (sum(self.lengths), heads, self.head_dim)
        return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5).to(dtype)


def bounds_of(lengths) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


@st.composite
def cases(draw, longest: int = 150) -> Case:
    """Ragged segments with and without prefixes, lengths on both sides of a tile's 64 keys."""
    lengths, prefix = [], []
    edges = [length for length in (0, 1, 63, 64, 65, 128) if length <= longest]
    length = st.one_of(st.integers(0, 5), st.integers(0, longest), st.sampled_from(edges))
    for _ in range(draw(st.integers(1, 4))):
        root = len(lengths)
        lengths.append(draw(length))
        prefix.append(-1)
        for _ in range(draw(st.integers(0, 3))):
            lengths.append(draw(length))
            prefix.append(root)
    return Case(
        tuple(lengths),
        tuple(prefix),
        num_kv_heads=draw(st.integers(1, 3)),
        group=draw(st.sampled_from([1, 2, 3, 7])),
        head_dim=draw(st.sampled_from([2, 8, 16, 20, 64, 128])),
        window=draw(st.one_of(st.none(), st.integers(1, 200))),
        softcap=draw(st.sampled_from([None, None, 2.0, 30.0])),
    )


def sequences(case: Case) -> list[tuple[list[int], int]]:
    """Each segment's tokens with its prefix's before them, and how many are the prefix's."""
    bounds = case.segments.cu_seqlens.tolist()
    own = [list(range(a, b)) for a, b in zip(bounds, bounds[1:])]
    seen = [[] if p < 0 else own[p] for p in case.prefix]
    return [(before + mine, len(before)) for before, mine in zip(seen, own)]


def attention_loop(qkv: Tensor, case: Case) -> Tensor:
    """Token by token and head by head, from the definition; differentiable."""
    num_heads = case.num_kv_heads * case.group
    rows = {}
    for tokens, num_before in sequences(case):
        for place in range(num_before, len(tokens)):
            first = 0 if case.window is None else max(0, place - case.window + 1)
            seen = tokens[first : place + 1]
            heads = [_head(qkv, case, tokens[place], seen, head) for head in range(num_heads)]
            rows[tokens[place]] = torch.stack(heads)
    if not rows:
        return qkv[:, :num_heads]
    return torch.stack([rows[token] for token in sorted(rows)])


def _head(qkv: Tensor, case: Case, token: int, seen: list[int], head: int) -> Tensor:
    num_heads, kv_head = case.num_kv_heads * case.group, head // case.group
    keys, values = qkv[seen, num_heads + kv_head], qkv[seen, num_heads + case.num_kv_heads + kv_head]
    scores = keys @ qkv[token, head] / math.sqrt(case.head_dim)
    if case.softcap is not None:
        scores = case.softcap * torch.tanh(scores / case.softcap)
    weights = (scores - scores.max()).exp()
    return weights / weights.sum() @ values
