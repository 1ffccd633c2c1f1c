"""Attention on CUDA where flash attention has no operator: soft caps, windows across a prefix, any head size.

PyTorch compiles it from what is said of a score and of who sees whom: FlexAttention (Dong et al. 2024,
arXiv:2412.05496). A table of blocks says which keys need not be looked at.
Shapes: T tokens, N blocks of them, Q query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from realrl.ops.segments import Segments
from realrl.ops.upload import upload

_BLOCK_TOKENS = 128
_LEAST_TOKENS = 1024
"""Of a sequence from which on it pays to compile a kernel for, which takes half a minute."""


def pays(qkv: Tensor, segments: Segments) -> bool:
    """Whether the scores of a sequence are too many to be all in memory."""
    longest = max((segments.lengths + segments.prefix_lengths).tolist(), default=0)
    return qkv.is_cuda and longest >= _LEAST_TOKENS


def attention(
    qkv: Tensor,
    num_kv_heads: int,
    segments: Segments,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """`packed_attention`, in the products' precision of the device."""
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    q, k, v = (x.transpose(0, 1)[None] for x in qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=1))
    key = "flex", qkv.device, window
    mask = segments.kept(key, lambda: _block_mask(segments, window, qkv.device))
    options = {"scale": scale, "block_mask": mask, "enable_gqa": num_heads != num_kv_heads}
    # The kernel for decoding, which PyTorch takes for few queries, has groups of 1, 2, 4 ... heads alone.
    options["kernel_options"] = {"FORCE_USE_FLEX_ATTENTION": True}
    score = None if softcap is None else _capped(softcap)
    return _compiled()(q, k, v, score_mod=score, **options)[0].transpose(0, 1)


@cache
def _compiled() -> Callable[..., Tensor]:
    # It brings PyTorch's compiler along, which takes seconds to import.
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)


@cache
def _capped(softcap: float) -> Callable[..., Tensor]:
    """One function for each cap, so that it is compiled once."""

    def score(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap)

    return score


def _block_mask(segments: Segments, window: int | None, device: torch.device):
    """Who sees whom, for a device; copied without a wait."""
    from torch.nn.attention.flex_attention import BlockMask

    numbers, indices = _blocks(segments)
    owners = torch.arange(len(segments)).repeat_interleave(segments.lengths.long())
    prefixes = segments.prefix.long()[owners]
    host = (numbers, indices, owners, prefixes, segments.positions())
    numbers, indices, owners, prefixes, positions = upload(host, device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (owners[query] == owners[key]) & (key <= query)
        seen = own | (owners[key] == prefixes[query])
        if window is None:
            return seen
        return seen & (positions[query] - positions[key] < window)

    return BlockMask.from_kv_blocks(
        numbers[None, None],
        indices[None, None],
        BLOCK_SIZE=_BLOCK_TOKENS,
        mask_mod=sees,
        seq_lengths=(len(owners), len(owners)),
    )


def _blocks(segments: Segments) -> tuple[Tensor, Tensor]:
    """Of each block of queries, how many blocks of keys may be seen, and which, these first.

    Shapes: int32 `[N]` and `[N, N]`.
    """
    number = -(-int(segments.cu_seqlens[-1]) // _BLOCK_TOKENS)
    may_see = torch.zeros(number, number, dtype=torch.bool)
    bounds = segments.bounds()
    for first, end, prefix in bounds:
        own = _blocks_of(first, end)
        may_see[own, own] = True
        if prefix >= 0:
            may_see[own, _blocks_of(*bounds[prefix][:2])] = True
    may_see = may_see.tril().int()
    order = may_see.argsort(dim=1, descending=True, stable=True)
    return may_see.sum(1).to(torch.int32), order.to(torch.int32)


def _blocks_of(first: int, end: int) -> slice:
    """The blocks that a run of tokens lies in."""
    return slice(first // _BLOCK_TOKENS, -(-end // _BLOCK_TOKENS) if end > first else first // _BLOCK_TOKENS)
