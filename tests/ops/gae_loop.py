"""GAE as a plain loop in float64, and batches to run it on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realrl.api.batch import cu_seqlens_of


def gae_loop(
    rewards: Tensor,
    values: Tensor,
    cu_seqlens: Tensor,
    bootstrap: Tensor,
    *,
    gamma: float,
    lam: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """The textbook's recurrence, token by token, from the end of each sequence."""
    advantages, returns = [], []
    bounds = cu_seqlens.tolist()
    lams = lam.tolist() if isinstance(lam, Tensor) else [lam] * len(bootstrap)
    for i, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
        r, v = rewards[start:stop].tolist(), values[start + i : stop + i + 1].tolist()
        if not bootstrap[i]:
            v[-1] = 0.0
        backwards, following = [], 0.0
        for t in reversed(range(len(r))):
            following = r[t] + gamma * v[t + 1] - v[t] + gamma * lams[i] * following
            backwards.append(following)
        advantages += backwards[::-1]
        returns += [a + b for a, b in zip(backwards[::-1], v, strict=False)]
    return torch.tensor(advantages, dtype=torch.float64), torch.tensor(returns, dtype=torch.float64)


def random_batch(
    lengths: Sequence[int], *, seed: int, bootstrap: bool | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`(rewards, values, cu_seqlens, bootstrap)`; a sequence is cut off as given, or by chance."""
    generator = torch.Generator().manual_seed(seed)
    num_tokens, num_sequences = sum(lengths), len(lengths)
    rewards = torch.randn(num_tokens, generator=generator)
    values = torch.randn(num_tokens + num_sequences, generator=generator)
    by_chance = torch.rand(num_sequences, generator=generator) < 0.5
    cut_off = by_chance if bootstrap is None else torch.full_like(by_chance, bootstrap)
    return rewards, values, cu_seqlens_of(lengths), cut_off
