"""Compute causal attention over packed segments, some of which share a prefix.

Shapes: T tokens, Q query heads, K key/value heads (head h of Q uses h // (Q / K)), D head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import flash, flex
from realrl.ops.kernels import NO_WINDOW, cpu_module
from realrl.ops.segments import Segments

_TYPES = (torch.float32, torch.bfloat16)


class AttentionRule(NamedTuple):
    """Score scaling, sliding window and soft cap of an attention layer."""

    scale: float
    window: int | None = None
    softcap: float | None = None


def packed_attention(
    qkv: Tensor,
    num_kv_heads: int,
    segments: Segments,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return the attention output of every token; differentiable in `qkv`.

    With `window`, a token sees itself and the `window - 1` positions before it (as in Mistral). With
    `softcap`, scores become `softcap * tanh(score / softcap)` (as in Gemma 2).

    On the CPU, a token's result is bitwise independent of the rest of the batch. It is also the same whether
    its prefix is shared or not, and whether this function or `KeyValueCache.attend` computes it.

    Shapes: qkv `[T, Q + 2K, D]`, query, then key, then value heads; returns `[T, Q, D]`.
    """
    rule = AttentionRule(scale, window, softcap)
    if runs_on_kernel(qkv):
        return _Attention.apply(qkv, num_kv_heads, segments, rule)
    if flash.can_run(qkv, segments, window, softcap):
        return flash.attention(qkv, num_kv_heads, segments, scale, window)
    if flex.can_run(qkv):
        return flex.attention(qkv, num_kv_heads, segments, *rule)
    return packed_attention_reference(qkv, num_kv_heads, segments, **rule._asdict())


def packed_attention_reference(
    qkv: Tensor,
    num_kv_heads: int,
    segments: Segments,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Compute `packed_attention` in PyTorch, one segment at a time, in float32 or float64.

    Shapes: as for `packed_attention`.
    """
    rule = AttentionRule(scale, window, softcap)
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    wide = qkv if qkv.dtype == torch.float64 else qkv.float()
    q, k, v = wide.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    bounds = segments.bounds()
    # The empty tensor lets `cat` accept a batch without segments.
    outputs = [q[:0]]
    for first, end, prefix in bounds:
        prefix_first = 0
        prefix_end = 0
        if prefix >= 0:
            prefix_first, prefix_end, _ = bounds[prefix]
        keys = torch.cat((k[prefix_first:prefix_end], k[first:end]))
        values = torch.cat((v[prefix_first:prefix_end], v[first:end]))
        output = attend_explicitly(q[first:end], keys, values, rule)
        outputs.append(output)
    return torch.cat(outputs).to(qkv.dtype)


def attend_explicitly(q: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
    """Return the attention output of the last N tokens of a sequence of L tokens.

    Shapes: q `[N, Q, D]`, keys and values `[L, K, D]`; returns `[N, Q, D]`.
    """
    num_queries = len(q)
    num_keys = len(keys)
    grouped = q.unflatten(1, (keys.shape[1], -1))
    scores = torch.einsum("nkgd,lkd->kgnl", grouped, keys) * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    positions = torch.arange(num_keys, device=q.device)
    query_positions = positions[num_keys - num_queries :, None]
    behind = query_positions - positions
    hidden = behind < 0
    if rule.window is not None:
        hidden = hidden | (behind >= rule.window)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    output = torch.einsum("kgnl,lkd->nkgd", weights, values)
    return output.flatten(1, 2)


def runs_on_kernel(qkv: Tensor) -> bool:
    """Whether the CPU kernel computes attention of these heads.

    Shapes: qkv `[T, Q + 2K, D]`.
    """
    has_even_heads = qkv.shape[-1] % 2 == 0
    fits = qkv.is_cpu and qkv.dtype in _TYPES and has_even_heads
    return fits and cpu_module() is not None


def kernel_shape(num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, rule: AttentionRule):
    """Return the `AttentionShape` argument of the CPU kernels."""
    window = NO_WINDOW if rule.window is None else rule.window
    is_bf16 = dtype == torch.bfloat16
    return cpu_module().AttentionShape(
        num_heads, num_kv_heads, head_dim, rule.scale, rule.softcap or 0.0, window, is_bf16
    )


class _Attention(torch.autograd.Function):
    """Attention by the CPU kernel."""

    @staticmethod
    def forward(ctx, qkv: Tensor, num_kv_heads: int, segments: Segments, rule: AttentionRule) -> Tensor:
        qkv = qkv.contiguous()
        num_tokens, num_rows, head_dim = qkv.shape
        num_heads = num_rows - 2 * num_kv_heads
        ctx.shape = kernel_shape(num_heads, num_kv_heads, head_dim, qkv.dtype, rule)
        ctx.segments = segments
        out = qkv.new_empty(num_tokens, num_heads, head_dim)
        lse = torch.empty(num_tokens, num_heads, dtype=torch.float32)
        arguments = _arguments(qkv, ctx.shape, segments)
        cpu_module().attention(*arguments, out.data_ptr(), lse.data_ptr(), torch.get_num_threads())
        ctx.save_for_backward(qkv, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout: Tensor):
        qkv, out, lse = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        dout = dout.contiguous()
        arguments = _arguments(qkv, ctx.shape, ctx.segments)
        tensors = [x.data_ptr() for x in (out, lse, dout, dqkv)]
        cpu_module().attention_backward(*arguments, *tensors, torch.get_num_threads())
        return dqkv, None, None, None


def _arguments(qkv: Tensor, shape, segments: Segments) -> tuple:
    """The arguments that the forward and the backward kernel share."""
    cu_seqlens = segments.cu_seqlens.data_ptr()
    prefix = segments.prefix.data_ptr()
    return shape, qkv.data_ptr(), cu_seqlens, prefix, len(segments)
