"""Attention on CUDA by PyTorch's flash attention, over own tokens and over prefixes separately, then merged.

A softmax over two sets of keys is the sum of their softmaxes, weighted by exp(logsumexp). The gradient of
each set needs only the merged output and logsumexp: its weights are exp(score - lse), and
dS = P * (dP - rowsum(dO * O)).

Shapes: T tokens, C of them in segments with a prefix, Q query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops.segments import Bounds, Segments


def can_run(qkv: Tensor, segments: Segments, window: int | None, softcap: float | None) -> bool:
    """Whether flash attention supports these inputs: it has no softcap, and no window across a prefix.

    Shapes: qkv `[T, Q + 2K, D]`.
    """
    head_dim = qkv.shape[-1]
    has_type = qkv.is_cuda and qkv.dtype == torch.bfloat16
    has_size = head_dim % 8 == 0 and head_dim <= 256
    if not has_type or not has_size or softcap is not None:
        return False
    return window is None or not segments.has_prefix


def attention(qkv: Tensor, num_kv_heads: int, segments: Segments, scale: float, window: int | None) -> Tensor:
    """Compute `packed_attention` for inputs that `can_run` accepts.

    Shapes: qkv `[T, Q + 2K, D]`; returns `[T, Q, D]`.
    """
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    sizes = num_heads, num_kv_heads, num_kv_heads
    q, k, v = qkv.split(sizes, dim=1)
    return _FlashAttention.apply(q, k, v, segments, scale, window)


class _FlashAttention(torch.autograd.Function):
    """Flash attention over own tokens and, if there are any, over prefixes."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float, window: int | None):
        """Return the output, `[T, Q, D]`."""
        index = segments.on(q.device)
        ctx.own = index.own
        ctx.prefixed = index.prefixed
        ctx.scale = scale
        ctx.window = window
        out, lse = _forward(
            q,
            k,
            v,
            ctx.own,
            scale,
            is_causal=True,
            window=window,
        )
        if ctx.prefixed is not None:
            tokens, seen, bounds = ctx.prefixed
            prefix_out, prefix_lse = _forward(
                q[tokens],
                k[seen],
                v[seen],
                bounds,
                scale,
                is_causal=False,
            )
            _merge(out, lse, tokens, prefix_out, prefix_lse)

        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout: Tensor):
        """Return the gradients of q, k and v, from that of the output, `[T, Q, D]`."""
        q, k, v, out, lse = ctx.saved_tensors
        dout = dout.contiguous()
        dq, dk, dv = _backward(
            dout,
            q,
            k,
            v,
            out,
            lse,
            ctx.own,
            ctx.scale,
            is_causal=True,
            window=ctx.window,
        )
        if ctx.prefixed is not None:
            tokens, seen, bounds = ctx.prefixed
            more_dq, more_dk, more_dv = _backward(
                dout[tokens],
                q[tokens],
                k[seen],
                v[seen],
                out[tokens],
                lse[:, tokens].contiguous(),
                bounds,
                ctx.scale,
                is_causal=False,
            )
            dq.index_add_(0, tokens, more_dq)
            dk.index_add_(0, seen, more_dk)
            dv.index_add_(0, seen, more_dv)
        return dq, dk, dv, None, None, None


def _merge(out: Tensor, lse: Tensor, tokens: Tensor, out_prefix: Tensor, lse_prefix: Tensor) -> None:
    """Merge attention over prefixes, `out_prefix [C, Q, D]` and `lse_prefix [Q, C]`, into `tokens`."""
    own = lse[:, tokens]
    merged = torch.logaddexp(own, lse_prefix)
    own_share = _share(own, merged)
    prefix_share = _share(lse_prefix, merged)
    # The products have no names, because each is as large as the output.
    weighted = out[tokens] * own_share + out_prefix * prefix_share
    out[tokens] = weighted.to(out.dtype)
    lse[:, tokens] = merged


def _share(part: Tensor, merged: Tensor) -> Tensor:
    """Return a part's share of the merged softmax: logsumexps `[Q, C]` to `[C, Q, 1]`."""
    share = (part - merged).exp()
    return share.t()[..., None]


def _forward(q, k, v, bounds: Bounds, scale: float, *, is_causal: bool, window: int | None = None):
    """Return the output `[T, Q, D]` and its logsumexp `[Q, T]`."""
    causal, extent = _extent(is_causal, window)
    no_dropout = 0.0
    returns_mask = False
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        *bounds,
        no_dropout,
        causal,
        returns_mask,
        scale=scale,
        **extent,
    )
    return out, lse


def _backward(
    dout, q, k, v, out, lse, bounds: Bounds, scale: float, *, is_causal: bool, window: int | None = None
):
    """Return the gradients of q, k and v."""
    causal, extent = _extent(is_causal, window)
    # The state is not read, as there is no dropout.
    random_state = torch.empty(2, dtype=torch.uint64, device=q.device)
    unused = torch.empty(0, device=q.device)
    no_dropout = 0.0
    return torch.ops.aten._flash_attention_backward(
        dout,
        q,
        k,
        v,
        out,
        lse,
        *bounds,
        no_dropout,
        causal,
        random_state,
        unused,
        scale=scale,
        **extent,
    )


def _extent(is_causal: bool, window: int | None) -> tuple[bool, dict[str, int]]:
    """Return the causal flag and the window sizes; with a window, the sizes also exclude later tokens."""
    if window is not None:
        return False, {"window_size_left": window - 1, "window_size_right": 0}
    right = 0 if is_causal else -1
    return is_causal, {"window_size_left": -1, "window_size_right": right}
