"""Compute causal attention over packed segments, some of which share a prefix.

Shapes: T tokens, Q query heads, K key/value heads (head h of Q uses h // (Q / K)), D head size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from realrl.ops import flash, flex
from realrl.ops.kernel_arguments import NO_WINDOW
from realrl.ops.kernels import built_cpu_module, cpu_module
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
    return packed_attention_reference(
        qkv,
        num_kv_heads,
        segments,
        scale=scale,
        window=window,
        softcap=softcap,
    )


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
    sizes = num_heads, num_kv_heads, num_kv_heads
    wide = qkv if qkv.dtype == torch.float64 else qkv.float()
    q, k, v = wide.split(sizes, dim=1)
    bounds = segments.bounds()
    # The empty tensor lets `cat` accept a batch without segments.
    outputs = [q[:0]]
    for first, end, prefix in bounds:
        own = slice(first, end)
        before = slice(0, 0)
        if prefix >= 0:
            prefix_first, prefix_end, _ = bounds[prefix]
            before = slice(prefix_first, prefix_end)

        keys = torch.cat((k[before], k[own]))
        values = torch.cat((v[before], v[own]))
        output = attend_explicitly(q[own], keys, values, rule)
        outputs.append(output)
    return torch.cat(outputs).to(qkv.dtype)


def attend_explicitly(q: Tensor, keys: Tensor, values: Tensor, rule: AttentionRule) -> Tensor:
    """Return the attention output of the last N tokens of a sequence of L tokens.

    Shapes: q `[N, Q, D]`, keys and values `[L, K, D]`; returns `[N, Q, D]`.
    """
    num_kv_heads = keys.shape[1]
    grouped = q.unflatten(1, (num_kv_heads, -1))
    scores = torch.einsum("nkgd,lkd->kgnl", grouped, keys) * rule.scale
    if rule.softcap is not None:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)

    hidden = _hidden_keys(len(q), len(keys), rule.window, q.device)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    output = torch.einsum("kgnl,lkd->nkgd", weights, values)
    return output.flatten(1, 2)


def _hidden_keys(num_queries: int, num_keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return which keys each of the last queries of a sequence does not see: bool `[queries, keys]`."""
    positions = torch.arange(num_keys, device=device)
    first_query = num_keys - num_queries
    query_positions = positions[first_query:, None]
    behind = query_positions - positions
    hidden = behind < 0
    if window is not None:
        hidden = hidden | (behind >= window)
    return hidden


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
    return built_cpu_module().AttentionShape(
        num_heads,
        num_kv_heads,
        head_dim,
        rule.scale,
        rule.softcap or 0.0,
        window,
        dtype == torch.bfloat16,
    )


class _Attention(torch.autograd.Function):
    """Attention by the CPU kernel."""

    @staticmethod
    def forward(ctx, qkv: Tensor, num_kv_heads: int, segments: Segments, rule: AttentionRule) -> Tensor:
        """Return the attention output: `[T, Q + 2K, D]` to `[T, Q, D]`."""
        qkv = qkv.contiguous()
        num_tokens, num_rows, head_dim = qkv.shape
        num_heads = num_rows - 2 * num_kv_heads
        ctx.shape = kernel_shape(num_heads, num_kv_heads, head_dim, qkv.dtype, rule)
        ctx.segments = segments
        out = qkv.new_empty(num_tokens, num_heads, head_dim)
        lse = torch.empty(num_tokens, num_heads, dtype=torch.float32)
        built_cpu_module().attention(
            *_arguments(qkv, ctx.shape, segments),
            out.data_ptr(),
            lse.data_ptr(),
            torch.get_num_threads(),
        )
        ctx.save_for_backward(qkv, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout: Tensor):
        """Return the gradient of qkv, `[T, Q + 2K, D]`, from that of the output, `[T, Q, D]`."""
        qkv, out, lse = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        dout = dout.contiguous()
        built_cpu_module().attention_backward(
            *_arguments(qkv, ctx.shape, ctx.segments),
            out.data_ptr(),
            lse.data_ptr(),
            dout.data_ptr(),
            dqkv.data_ptr(),
            torch.get_num_threads(),
        )
        return dqkv, None, None, None


def _arguments(qkv: Tensor, shape, segments: Segments) -> tuple:
    """Return the arguments that the forward and the backward kernel share."""
    return (
        shape,
        qkv.data_ptr(),
        segments.cu_seqlens.data_ptr(),
        segments.prefix.data_ptr(),
        len(segments),
    )
