"""Attention on CUDA by PyTorch's flash attention: over own tokens and over prefixes apart, then merged.

Softmax over two sets of keys is their softmaxes weighted by exp(logsumexp). The gradient of each set needs
only the merged output and logsumexp: its weights are exp(score - lse), and dS = P * (dP - rowsum(dO * O)).
Shapes: T tokens, C of them in segments with a prefix, Q query heads, K key/value heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops.segments import Bounds, Segments


def can_run(qkv: Tensor, segments: Segments, window: int | None, softcap: float | None) -> bool:
    """Whether flash attention covers the case: it has no softcap, and no window across a prefix."""
    fits = qkv.is_cuda and qkv.dtype == torch.bfloat16 and qkv.shape[-1] % 8 == 0 and qkv.shape[-1] <= 256
    return fits and softcap is None and (window is None or not segments.has_prefix)


def attention(qkv: Tensor, num_kv_heads: int, segments: Segments, scale: float, window: int | None) -> Tensor:
    """`packed_attention` where `can_run`."""
    num_heads = qkv.shape[1] - 2 * num_kv_heads
    q, k, v = qkv.split((num_heads, num_kv_heads, num_kv_heads), dim=1)
    return _FlashAttention.apply(q, k, v, segments, scale, window)


class _FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, segments: Segments, scale: float, window: int | None):
        _, ctx.own, ctx.prefixed = segments.on(q.device)
        ctx.scale, ctx.window = scale, window
        out, lse = _forward(q, k, v, ctx.own, scale, is_causal=True, window=window)
        if ctx.prefixed is not None:
            tokens, seen, bounds = ctx.prefixed
            _merge(out, lse, tokens, *_forward(q[tokens], k[seen], v[seen], bounds, scale, is_causal=False))
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx, dout: Tensor):
        q, k, v, out, lse = ctx.saved_tensors
        dout = dout.contiguous()
        own = (dout, q, k, v, out, lse)
        grads = _backward(*own, ctx.own, ctx.scale, is_causal=True, window=ctx.window)
        if ctx.prefixed is not None:
            tokens, seen, bounds = ctx.prefixed
            part = (dout[tokens], q[tokens], k[seen], v[seen], out[tokens], lse[:, tokens].contiguous())
            more = _backward(*part, bounds, ctx.scale, is_causal=False)
            for grad, index, added in zip(grads, (tokens, seen, seen), more):
                grad.index_add_(0, index, added)
        return *grads, None, None, None


def _merge(out: Tensor, lse: Tensor, tokens: Tensor, out_prefix: Tensor, lse_prefix: Tensor) -> None:
    """Let `tokens` also see what `out_prefix [C, Q, D]` and `lse_prefix [Q, C]` are of."""
    own = lse[:, tokens]
    merged = torch.logaddexp(own, lse_prefix)
    shares = [(one - merged).exp().t()[..., None] for one in (own, lse_prefix)]
    out[tokens] = (out[tokens] * shares[0] + out_prefix * shares[1]).to(out.dtype)
    lse[:, tokens] = merged


def _forward(q, k, v, bounds: Bounds, scale: float, *, is_causal: bool, window: int | None = None):
    """The output `[T, Q, D]`, and its logsumexp `[Q, T]`."""
    causal, extent = _extent(is_causal, window)
    out, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, *bounds, 0.0, causal, False, scale=scale, **extent
    )
    return out, lse


def _backward(
    dout, q, k, v, out, lse, bounds: Bounds, scale: float, *, is_causal: bool, window: int | None = None
):
    causal, extent = _extent(is_causal, window)
    # Without dropout no random state is read.
    random_state = torch.empty(2, dtype=torch.uint64, device=q.device)
    unused = torch.empty(0, device=q.device)
    return torch.ops.aten._flash_attention_backward(
        *(dout, q, k, v, out, lse, *bounds, 0.0, causal, random_state, unused), scale=scale, **extent
    )


def _extent(is_causal: bool, window: int | None) -> tuple[bool, dict[str, int]]:
    """A window already says that no token sees a later one."""
    if window is None:
        return is_causal, {"window_size_left": -1, "window_size_right": 0 if is_causal else -1}
    return False, {"window_size_left": window - 1, "window_size_right": 0}
