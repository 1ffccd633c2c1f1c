"""Flash attention's two operators as loops, in the type of their inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.ops.segments import Bounds


def forward(q, k, v, bounds, scale, *, is_causal, window=None):
    """The output `[T, Q, D]`, and its logsumexp `[Q, T]`."""
    group = q.shape[1] // k.shape[1]
    out, lse = torch.zeros_like(q), q.new_zeros(q.shape[1], len(q))
    for mine, seen in _sequences(q, k, bounds):
        keys, values = (x[seen].repeat_interleave(group, 1) for x in (k, v))
        scores = _scores(q[mine], keys, scale, is_causal=is_causal, window=window)
        lse[:, mine] = scores.logsumexp(-1)
        out[mine] = torch.einsum("qnl,lqd->nqd", scores.softmax(-1), values)
    return out, lse


def backward(dout, q, k, v, out, lse, bounds, scale, *, is_causal, window=None):
    """From the given logsumexp, as the operator has it: it may be that of more keys than these."""
    group = q.shape[1] // k.shape[1]
    dq, dk, dv = (torch.zeros_like(x) for x in (q, k, v))
    for mine, seen in _sequences(q, k, bounds):
        keys, values = (x[seen].repeat_interleave(group, 1) for x in (k, v))
        scores = _scores(q[mine], keys, scale, is_causal=is_causal, window=window)
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


def _scores(q: Tensor, k: Tensor, scale: float, *, is_causal: bool, window: int | None) -> Tensor:
    """Scores `[Q, n, l]` of one sequence, -inf where a query does not see a key."""
    scores = torch.einsum("nqd,lqd->qnl", q, k) * scale
    if not is_causal and window is None:
        return scores
    behind = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
    hidden = behind < 0
    if window is not None:
        hidden |= behind >= window
    return scores.masked_fill(hidden, float("-inf"))


def _sequences(q: Tensor, k: Tensor, bounds: Bounds) -> list[tuple[slice, slice]]:
    queries, keys = bounds.queries.tolist(), bounds.keys.tolist()
    assert (queries[-1], keys[-1]) == (len(q), len(k))
    assert bounds.longest_queries == max(b - a for a, b in zip(queries, queries[1:]))
    assert bounds.longest_keys == max(b - a for a, b in zip(keys, keys[1:]))
    return [
        (slice(*pair), slice(*other))
        for pair, other in zip(zip(queries, queries[1:]), zip(keys, keys[1:]), strict=True)
    ]
