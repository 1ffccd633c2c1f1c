"""Calls of the CUDA kernels of decoding, and what they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from realrl.ops import cache as cache_module
from realrl.ops.attention import AttentionRule, attend_explicitly

TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


@dataclass(frozen=True)
class Shape:
    """Sizes of a call, and its rule."""

    group: int
    head_dim: int
    page_tokens: int
    num_kv_heads: int = 1
    window: int | None = None
    softcap: float | None = None

    @property
    def num_heads(self) -> int:
        return self.num_kv_heads * self.group

    @property
    def rule(self) -> AttentionRule:
        return AttentionRule(self.head_dim**-0.5, self.window, self.softcap)


@dataclass(frozen=True)
class Step:
    """One call: the newest tokens' heads, and where each sequence's keys and values are."""

    shape: Shape
    qkv: Tensor
    """`[B, Q + 2K, D]`, of which only the query heads are read."""
    pages: Tensor
    table: Tensor
    lengths: Tensor

    def run(self) -> Tensor:
        """Return what the kernels find, `[B, Q, D]`."""
        cache = cache_module._CudaPages.__new__(cache_module._CudaPages)
        cache._data = self.pages[:, None].clone()
        q = self.qkv.clone()[:, : self.shape.num_heads]
        return cache.attend(0, q, self.table.clone(), self.lengths.clone(), self.shape.rule)

    def expected(self) -> Tensor:
        """Return what the reference finds, one sequence after the other, in float64."""
        rows = []
        for q, table, length in zip(self.qkv, self.table, self.lengths.tolist(), strict=True):
            keys, values = (x[table.long()].flatten(0, 1)[:length].double() for x in self.pages)
            q = q[None, : self.shape.num_heads].double()
            rows.append(attend_explicitly(q, keys, values, self.shape.rule))
        return torch.cat(rows)

    def on(self, device: str) -> Step:
        tensors = {name: getattr(self, name).to(device) for name in ("qkv", "pages", "table", "lengths")}
        return replace(self, **tensors)

    def row(self, row: int, width: int) -> Step:
        """Return one sequence alone, with a table of another width."""
        one = slice(row, row + 1)
        table = self.table.new_zeros(1, width)
        kept = min(width, self.table.shape[1])
        table[:, :kept] = self.table[one, :kept]
        return replace(self, qkv=self.qkv[one], table=table, lengths=self.lengths[one])


def random_step(shape: Shape, lengths: Sequence[int], dtype: torch.dtype, *, seed: int = 0) -> Step:
    """Sequences in pages in random order. Whatever is no sequence's is NaN, and so are pages to spare."""
    generator = torch.Generator().manual_seed(seed)
    page, kv_shape = shape.page_tokens, (shape.num_kv_heads, shape.head_dim)
    counts = [-(-length // page) for length in lengths]
    pages = torch.full((2, sum(counts) + 2, page, *kv_shape), float("nan"), dtype=dtype)
    numbers = torch.randperm(sum(counts), generator=generator).split(counts)
    table = torch.full((len(lengths), max(counts)), sum(counts) + 1, dtype=torch.int32)
    for row, (length, own) in enumerate(zip(lengths, numbers)):
        table[row, : len(own)] = own
        tokens = 1.5 * torch.randn(2, len(own) * page, *kv_shape, generator=generator)
        tokens[:, length:] = float("nan")
        pages[:, own] = tokens.view(2, len(own), page, *kv_shape).to(dtype)
    heads = shape.num_heads + 2 * shape.num_kv_heads
    qkv = 1.5 * torch.randn(len(lengths), heads, shape.head_dim, generator=generator)
    return Step(shape, qkv.to(dtype), pages, table, torch.tensor(lengths))


def check(found: Tensor, step: Step) -> None:
    tolerance = TOLERANCES[found.dtype]
    torch.testing.assert_close(found.cpu().double(), step.expected(), rtol=tolerance, atol=tolerance)
