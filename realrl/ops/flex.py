"""Attention on CUDA for cases without flash attention: soft caps, windows across a prefix, other head sizes.

PyTorch compiles a kernel from a function of a score and a mask function: FlexAttention (Dong et al. 2024,
arXiv:2412.05496). A table of blocks lists the keys that a query may see.

Shapes: T tokens, N blocks of them, Q query heads, K key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from realrl.ops.segments import Segments
from realrl.ops.upload import upload

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_BLOCK_TOKENS = 128
"""Tokens of a block of the mask."""
_LEAST_TOKENS = 1024
"""Fewest tokens for which a kernel is compiled; compiling takes half a minute."""
_LEAST_HEAD_DIM = 16
"""The smallest head size of PyTorch's kernel."""


def can_run(qkv: Tensor) -> bool:
    """Whether these inputs run on a compiled kernel; with fewer tokens, PyTorch's operators are fast enough.

    Shapes: qkv `[T, Q + 2K, D]`.
    """
    has_large_heads = qkv.shape[-1] >= _LEAST_HEAD_DIM
    return qkv.is_cuda and len(qkv) >= _LEAST_TOKENS and has_large_heads


def attention(
    qkv: Tensor,
    num_kv_heads: int,
    segments: Segments,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Compute `packed_attention` in the device's precision of matrix products.

    Shapes: qkv `[T, Q + 2K, D]`; returns `[T, Q, D]`.
    """
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    sizes = num_heads, num_kv_heads, num_kv_heads
    parts = qkv.split(sizes, dim=1)
    # The kernel takes `[1, heads, T, D]`.
    q, k, v = (part.transpose(0, 1)[None] for part in parts)
    key = "flex", qkv.device, window, softcap
    mask, score = segments.kept(key, lambda: _rules(segments, window, softcap, qkv.device))
    options = {
        "scale": scale,
        "block_mask": mask,
        "enable_gqa": num_heads != num_kv_heads,
        # PyTorch's decoding kernel, its choice for few queries, requires a power of two of heads in a group.
        "kernel_options": {"FORCE_USE_FLEX_ATTENTION": True},
    }
    out = _compiled()(q, k, v, score_mod=score, **options)
    return out[0].transpose(0, 1)


@cache
def _compiled() -> Callable[..., Tensor]:
    # Imported late: it imports PyTorch's compiler, which takes seconds.
    from torch import _dynamo
    from torch.nn.attention.flex_attention import flex_attention

    # After too many recompilations, the fallback would keep all scores in memory.
    refusing = _dynamo.config.patch(fail_on_recompile_limit_hit=True)
    return refusing(torch.compile(flex_attention, dynamic=True))


def _rules(
    segments: Segments, window: int | None, softcap: float | None, device: torch.device
) -> tuple[BlockMask, Callable[..., Tensor] | None]:
    """Return the block mask and the function of scores for a device, copied without a wait.

    Numbers are tensors, because the compiler would treat Python numbers as dynamic sizes.
    """
    numbers, indices = _blocks(segments)
    owners = torch.arange(len(segments)).repeat_interleave(segments.lengths.long())
    prefixes = segments.prefix.long()[owners]
    reach = torch.tensor(window or 0)
    cap = torch.tensor(softcap or 0.0)
    host = numbers, indices, owners, prefixes, segments.positions(), reach, cap
    numbers, indices, owners, prefixes, positions, reach, cap = upload(host, device)

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Bound a score."""
        return cap * torch.tanh(score / cap)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Whether a query sees a key."""
        is_own = owners[query] == owners[key]
        own = is_own & (key <= query)
        in_prefix = owners[key] == prefixes[query]
        seen = own | in_prefix
        if window is None:
            return seen
        distance = positions[query] - positions[key]
        return seen & (distance < reach)

    mask = _block_mask(numbers, indices, sees, len(owners))
    score = None if softcap is None else capped
    return mask, score


def _block_mask(numbers: Tensor, indices: Tensor, sees: Callable[..., Tensor], num_tokens: int) -> BlockMask:
    """Return PyTorch's mask from the blocks of keys that each block of queries may see.

    Shapes: int32 `[N]` and `[N, N]`.
    """
    from torch.nn.attention.flex_attention import BlockMask

    return BlockMask.from_kv_blocks(
        numbers[None, None],
        indices[None, None],
        BLOCK_SIZE=_BLOCK_TOKENS,
        mask_mod=sees,
        seq_lengths=(num_tokens, num_tokens),
    )


def _blocks(segments: Segments) -> tuple[Tensor, Tensor]:
    """Return how many blocks of keys each block of queries may see, and all blocks with these first.

    Shapes: int32 `[N]` and `[N, N]`.
    """
    num_tokens = int(segments.cu_seqlens[-1])
    number = -(-num_tokens // _BLOCK_TOKENS)
    may_see = torch.zeros(number, number, dtype=torch.bool)
    bounds = segments.bounds()
    for first, end, prefix in bounds:
        own = _blocks_of(first, end)
        may_see[own, own] = True
        if prefix >= 0:
            prefix_first, prefix_end, _ = bounds[prefix]
            before = _blocks_of(prefix_first, prefix_end)
            may_see[own, before] = True

    # No token sees a later one.
    may_see = may_see.tril().int()
    order = may_see.argsort(dim=1, descending=True, stable=True)
    counts = may_see.sum(1)
    return counts.to(torch.int32), order.to(torch.int32)


def _blocks_of(first: int, end: int) -> slice:
    """Return the blocks that contain a run of tokens."""
    first_block = first // _BLOCK_TOKENS
    if end <= first:
        return slice(first_block, first_block)
    end_block = -(-end // _BLOCK_TOKENS)
    return slice(first_block, end_block)
