"""Shares work out so that the largest load is as small as it can be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_GOOD_ENOUGH = 1.002
_MOST_PASSES = 200


@dataclass(frozen=True)
class Balanced:
    """How much of each demand each of its candidates takes on."""

    quotas: tuple[dict[Hashable, float], ...]
    """By demand: candidate to its part."""
    largest: float
    """The largest load."""
    lower_bound: float
    """No sharing has a smaller largest load: what only some set can take on, shared evenly among it."""


def balance(
    demands: Sequence[tuple[float, Sequence[Hashable]]], base: Mapping[Hashable, float] | None = None
) -> Balanced:
    """Share each `(amount, candidates)` out over its candidates, beside the loads of `base`.

    Fills the least loaded candidates of one demand at a time, as water finds its level, until a set of
    candidates proves that the largest load cannot fall by more than 0.2 percent. The sum of squared loads
    falls with each turn and is least where the loads are best (Federgruen & Groenevelt 1986).
    """
    base = base or {}
    names = list(dict.fromkeys([*base, *(c for _, candidates in demands for c in candidates)]))
    index = {name: i for i, name in enumerate(names)}
    loads = np.array([base.get(name, 0.0) for name in names])
    members = [np.array([index[c] for c in candidates]) for _, candidates in demands]
    amounts = [float(amount) for amount, _ in demands]
    quotas = [np.zeros(len(who)) for who in members]
    bound = _bound(loads, loads, members, amounts)
    for _ in range(_MOST_PASSES):
        for i, who in enumerate(members):
            loads[who] -= quotas[i]
            quotas[i] = _fill(loads[who], amounts[i])
            loads[who] += quotas[i]
        bound = max(bound, _bound(loads, np.array([base.get(n, 0.0) for n in names]), members, amounts))
        if not len(loads) or loads.max() <= bound * _GOOD_ENOUGH:
            break
    shares = tuple(dict(zip(c, q.tolist(), strict=True)) for (_, c), q in zip(demands, quotas, strict=True))
    return Balanced(shares, float(loads.max(initial=0.0)), float(bound))


def _fill(loads: np.ndarray, amount: float) -> np.ndarray:
    """What raises the lowest of `loads` to one level, in all `amount`."""
    ordered = np.sort(loads)
    depth = np.arange(1, len(ordered) + 1)
    levels = (ordered.cumsum() + amount) / depth
    level = levels[np.flatnonzero(levels >= ordered)[-1]]
    return np.maximum(level - loads, 0.0)


def _bound(
    loads: np.ndarray, base: np.ndarray, members: Sequence[np.ndarray], amounts: Sequence[float]
) -> float:
    """The best lower bound that the sets of the most loaded candidates prove."""
    best = 0.0
    for slack in (1e-9, 1e-4, 1e-2):
        chosen = loads >= loads.max(initial=0.0) * (1 - slack)
        forced = sum(amount for who, amount in zip(members, amounts) if chosen[who].all())
        if chosen.any():
            best = max(best, (forced + base[chosen].sum()) / chosen.sum())
    return best
