"""Causal attention over packed sequences, and over a key/value cache.

Shapes: T tokens, B sequences, Q query heads, K key/value heads, D head size, S cache length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn


def packed_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Each token attends to itself and the earlier tokens of its own sequence.

    Shapes: q `[T, Q, D]`, k and v `[T, K, D]`, cu_seqlens int32 `[B+1]` on the host; returns `[T, Q, D]`.
    """
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return _varlen_attention(q, k, v, cu_seqlens)
    bounds = cu_seqlens.tolist()
    outputs = [_causal(q[a:b], k[a:b], v[a:b]) for a, b in zip(bounds, bounds[1:])]
    return torch.cat(outputs) if outputs else torch.empty_like(q)


def cached_attention(q: Tensor, keys: Tensor, values: Tensor, lengths: Tensor) -> Tensor:
    """One new token a sequence attends to the first `lengths` entries of its cache.

    Shapes: q `[B, Q, D]`, keys and values `[B, K, S, D]`, lengths `[B]`; returns `[B, Q, D]`.
    """
    num_sequences, num_kv_heads = keys.shape[:2]
    grouped = q.view(num_sequences, num_kv_heads, -1, q.shape[-1])
    visible = torch.arange(keys.shape[2], device=q.device) < lengths[:, None]
    attended = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=visible[:, None, None, :])
    return attended.reshape(q.shape)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
    attended = F.scaled_dot_product_attention(
        *heads_first, is_causal=True, enable_gqa=q.shape[1] != k.shape[1]
    )
    return attended[0].transpose(0, 1)


def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor) -> Tensor:
    bounds = cu_seqlens.to(q.device)
    longest = int(cu_seqlens.diff().max())
    return varlen_attn(
        q, k, v, bounds, bounds, longest, longest, window_size=(-1, 0), enable_gqa=q.shape[1] != k.shape[1]
    )
