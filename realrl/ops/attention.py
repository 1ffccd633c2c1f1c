"""Causal attention over packed segments, some of which share a prefix.

Shapes: T tokens, Q query heads, K key/value heads (head h of Q uses h // (Q / K)), D head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import flash, flex
from realrl.ops.kernels import cpu_module
from realrl.ops.segments import Segments

_TYPES = (torch.float32, torch.bfloat16)


class AttentionRule(NamedTuple):
    """How scores become weights, and how far back a token sees."""

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
    """Attention of every token to those it sees; differentiable in `qkv`.

    `window`: a token sees itself and the `window - 1` positions before it (as in Mistral). `softcap`: scores
    become `softcap * tanh(score / softcap)` (as in Gemma 2).
    On the CPU a token's result has the same bits whatever else is in the batch, whether its prefix is shared
    or not, and whether it is computed here or by `KeyValueCache.attend`.

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
    """The kernel's twin, in PyTorch: in float32 at least, one segment after the other."""
    rule = AttentionRule(scale, window, softcap)
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    wide = qkv if qkv.dtype == torch.float64 else qkv.float()
    q, k, v = wide.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    bounds, outputs = segments.bounds(), [q[:0]]
    for first, end, prefix in bounds:
        seen = slice(0, 0) if prefix < 0 else slice(*bounds[prefix][:2])
        keys, values = (torch.cat((x[seen], x[first:end])) for x in (k, v))
        outputs.append(attend_explicitly(q[first:end], keys, values, rule))
    return torch.cat(outputs).to(qkv.dtype)


def attend_explicitly(q: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
    """The last tokens of a sequence over all of it.

    Shapes: q `[N, Q, D]`, keys and values `[L, K, D]`; returns `[N, Q, D]`.
    """
    num_queries, num_keys = len(q), len(keys)
    grouped = q.unflatten(1, (keys.shape[1], -1))
    scores = torch.einsum("nkgd,lkd->kgnl", grouped, keys) * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    positions = torch.arange(num_keys, device=q.device)
    behind = positions[num_keys - num_queries :, None] - positions
    hidden = behind < 0
    if rule.window is not None:
        hidden = hidden | (behind >= rule.window)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("kgnl,lkd->nkgd", weights, values).flatten(1, 2)


def runs_on_kernel(qkv: Tensor) -> bool:
    return qkv.is_cpu and qkv.dtype in _TYPES and qkv.shape[-1] % 2 == 0 and cpu_module() is not None


def kernel_shape(num_heads: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, rule: AttentionRule):
    """What the kernels call an `AttentionShape`."""
    window = (1 << 40) if rule.window is None else rule.window
    is_bf16 = dtype == torch.bfloat16
    return cpu_module().AttentionShape(
        num_heads, num_kv_heads, head_dim, rule.scale, rule.softcap or 0.0, window, is_bf16
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, num_kv_heads: int, segments: Segments, rule: AttentionRule) -> Tensor:
        qkv = qkv.contiguous()
        num_tokens, num_rows, head_dim = qkv.shape
        num_heads = num_rows - 2 * num_kv_heads
        ctx.job = kernel_shape(num_heads, num_kv_heads, head_dim, qkv.dtype, rule), segments
        out = qkv.new_empty(num_tokens, num_heads, head_dim)
        lse = torch.empty(num_tokens, num_heads, dtype=torch.float32)
        outputs = out.data_ptr(), lse.data_ptr()
        cpu_module().attention(*_arguments(qkv, *ctx.job), *outputs, torch.get_num_threads())
        ctx.save_for_backward(qkv, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout: Tensor):
        qkv, out, lse = ctx.saved_tensors
        dqkv, dout = torch.empty_like(qkv), dout.contiguous()
        tensors = [x.data_ptr() for x in (out, lse, dout, dqkv)]
        cpu_module().attention_backward(*_arguments(qkv, *ctx.job), *tensors, torch.get_num_threads())
        return dqkv, None, None, None


def _arguments(qkv: Tensor, shape, segments: Segments) -> tuple:
    tensors = [x.data_ptr() for x in (qkv, segments.cu_seqlens, segments.prefix)]
    return shape, *tensors, len(segments)
