"""Attention as on CUDA, with flash attention's two operators as loops in float64: what is made of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor

from realrl.ops import flash
from realrl.ops.attention import packed_attention_reference
from realrl.ops.segments import Bounds
from tests.ops.attention_cases import Case, cases

SHARED = Case((10, 3, 1, 7, 0, 5, 4), (-1, 0, 0, -1, 3, 3, 0), 2, 3, 8, None, None)


def weights(q: Tensor, k: Tensor, scale: float, *, is_causal: bool, window: int | None) -> Tensor:
    """Scores `[Q, n, l]` of one sequence, -inf where a query does not see a key."""
    scores = torch.einsum("nqd,lqd->qnl", q, k) * scale
    if not is_causal and window is None:
        return scores
    behind = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
    hidden = behind < 0
    if window is not None:
        hidden |= behind >= window
    return scores.masked_fill(hidden, float("-inf"))


def sequences(q: Tensor, k: Tensor, bounds: Bounds) -> list[tuple[slice, slice]]:
    queries, keys = bounds.queries.tolist(), bounds.keys.tolist()
    assert (queries[-1], keys[-1]) == (len(q), len(k))
    assert bounds.longest_queries == max(b - a for a, b in zip(queries, queries[1:]))
    assert bounds.longest_keys == max(b - a for a, b in zip(keys, keys[1:]))
    return [
        (slice(*pair), slice(*other))
        for pair, other in zip(zip(queries, queries[1:]), zip(keys, keys[1:]), strict=True)
    ]


def forward(q, k, v, bounds, scale, *, is_causal, window=None):
    group = q.shape[1] // k.shape[1]
    out, lse = torch.zeros_like(q), q.new_zeros(q.shape[1], len(q))
    for mine, seen in sequences(q, k, bounds):
        keys, values = (x[seen].repeat_interleave(group, 1) for x in (k, v))
        scores = weights(q[mine], keys, scale, is_causal=is_causal, window=window)
        lse[:, mine] = scores.logsumexp(-1)
        out[mine] = torch.einsum("qnl,lqd->nqd", scores.softmax(-1), values)
    return out, lse


def backward(dout, q, k, v, out, lse, bounds, scale, *, is_causal, window=None):
    """From the given logsumexp, as the operator has it: it may be that of more keys than these."""
    group = q.shape[1] // k.shape[1]
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    for mine, seen in sequences(q, k, bounds):
        keys, values = (x[seen].repeat_interleave(group, 1) for x in (k, v))
        scores = weights(q[mine], keys, scale, is_causal=is_causal, window=window)
        shares = (scores - lse[:, mine, None]).exp()
        rows = (dout[mine] * out[mine]).sum(-1).t()
        dscores = shares * (torch.einsum("nqd,lqd->qnl", dout[mine], values) - rows[..., None]) * scale
        dq[mine] = torch.einsum("qnl,lqd->nqd", dscores, keys)
        for total, added in (
            (dk, torch.einsum("qnl,nqd->lqd", dscores, q[mine])),
            (dv, torch.einsum("qnl,nqd->lqd", shares, dout[mine])),
        ):
            total[seen] = added.unflatten(1, (-1, group)).sum(2)
    return dq, dk, dv


@pytest.fixture(scope="module", autouse=True)
def _operators():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash, "_forward", forward)
        patch.setattr(flash, "_backward", backward)
        yield


@settings(max_examples=60, deadline=None)
@given(case=cases(longest=8))
@example(case=SHARED)
@example(case=replace(SHARED, prefix=(-1,) * 7, window=3))
def test_own_keys_and_a_prefix_are_one_softmax(case):
    """Output and gradient against the reference, wherever flash attention would be taken."""
    if case.softcap is not None or (case.window is not None and case.segments.has_prefix):
        return
    qkv = case.qkv(dtype=torch.float64)
    if not len(qkv):
        return
    rule = {"scale": case.rule["scale"], "window": case.window}
    dout = torch.randn_like(qkv[:, : case.num_kv_heads * case.group])
    found, wanted = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    out = flash.attention(found, case.num_kv_heads, case.segments, **rule)
    expected = packed_attention_reference(wanted, case.num_kv_heads, case.segments, **rule)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    for x in (out, expected):
        x.backward(dout)
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-9, atol=1e-9)
