"""Attention on CUDA where flash attention has no operator: soft caps, windows across a prefix, other heads.

PyTorch compiles it from what is said of a score and of who sees whom: FlexAttention (Dong et al. 2024,
arXiv:2412.05496). A table of blocks says which keys need not be looked at.
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
_LEAST_TOKENS = 1024
"""Fewest tokens for which a kernel is compiled; compiling takes half a minute."""
_LEAST_HEAD_DIM = 16
"""As PyTorch's kernel has it."""


def can_run(qkv: Tensor) -> bool:
    """Whether a kernel is compiled for so many tokens; for fewer, PyTorch's operators do in a moment."""
    return qkv.is_cuda and len(qkv) >= _LEAST_TOKENS and qkv.shape[-1] >= _LEAST_HEAD_DIM


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
    key = "flex", qkv.device, window, softcap
    mask, score = segments.kept(key, lambda: _rules(segments, window, softcap, qkv.device))
    options = {"scale": scale, "block_mask": mask, "enable_gqa": num_heads != num_kv_heads}
    # The kernel for decoding, which PyTorch takes for few queries, has groups of 1, 2, 4 ... heads alone.
    options["kernel_options"] = {"FORCE_USE_FLEX_ATTENTION": True}
    return _compiled()(q, k, v, score_mod=score, **options)[0].transpose(0, 1)


@cache
def _compiled() -> Callable[..., Tensor]:
    # It brings PyTorch's compiler along, which takes seconds to import.
    from torch import _dynamo
    from torch.nn.attention.flex_attention import flex_attention

    # Else, once it has compiled for too many kinds of calls, it would go on with all scores in memory.
    refusing = _dynamo.config.patch(fail_on_recompile_limit_hit=True)
    return refusing(torch.compile(flex_attention, dynamic=True))


def _rules(
    segments: Segments, window: int | None, softcap: float | None, device: torch.device
) -> tuple[BlockMask, Callable[..., Tensor] | None]:
    """Who sees whom, and what becomes of a score, for a device; copied without a wait.

    Numbers are tensors: the compiler would take others for sizes that change.
    """
    from torch.nn.attention.flex_attention import BlockMask

    numbers, indices = _blocks(segments)
    owners = torch.arange(len(segments)).repeat_interleave(segments.lengths.long())
    prefixes = segments.prefix.long()[owners]
    rule = torch.tensor(window or 0), torch.tensor(softcap or 0.0)
    host = (numbers, indices, owners, prefixes, segments.positions(), *rule)
    numbers, indices, owners, prefixes, positions, reach, cap = upload(host, device)

    def capped(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (owners[query] == owners[key]) & (key <= query)
        seen = own | (owners[key] == prefixes[query])
        if window is None:
            return seen
        return seen & (positions[query] - positions[key] < reach)

    mask = BlockMask.from_kv_blocks(
        numbers[None, None],
        indices[None, None],
        BLOCK_SIZE=_BLOCK_TOKENS,
        mask_mod=sees,
        seq_lengths=(len(owners), len(owners)),
    )
    return mask, None if softcap is None else capped


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
