"""Divides work over candidates so that the largest load is as small as possible."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

Candidate = TypeVar("Candidate", bound=Hashable)
"""Who can take a part of a demand."""

_TOLERANCE = 1.002
"""Iteration stops once the largest load is at most this factor above its proven lower bound."""
_MAX_PASSES = 200
"""Passes over all demands; a bound on the time where the proof converges slowly."""
_SLACKS = (1e-9, 1e-4, 1e-2)
"""Relative distances from the largest load within which a candidate counts as most loaded."""


@dataclass(frozen=True)
class Balanced(Generic[Candidate]):
    """The amount of each demand that each of its candidates takes."""

    quotas: tuple[dict[Candidate, float], ...]
    """For each demand: its candidates and the amount that each takes."""
    largest: float
    """The largest load."""
    lower_bound: float
    """A lower bound on the largest load of any division.

    It is work that only one set of candidates can take, divided evenly over that set.
    """


def balance(
    demands: Sequence[tuple[float, Sequence[Candidate]]], base: Mapping[Candidate, float] | None = None
) -> Balanced[Candidate]:
    """Divide each demand `(amount, candidates)` over its candidates, in addition to the loads of `base`.

    Each step divides one demand anew: water filling over its least loaded candidates. Passes over all
    demands end when a set of candidates proves that the largest load cannot fall by more than 0.2 percent.
    Each step lowers the sum of squared loads, which is least where the largest load is least.

    Source: Federgruen & Groenevelt 1986, the greedy procedure for resource allocation.
    """
    base = base or {}
    index = _numbered(demands, base)
    fixed_loads = [base.get(name, 0.0) for name in index]
    fixed = np.array(fixed_loads)
    loads = fixed.copy()

    amounts = []
    members = []
    quotas = []
    for amount, candidates in demands:
        numbers = [index[candidate] for candidate in candidates]
        amounts.append(float(amount))
        members.append(np.array(numbers))
        quotas.append(np.zeros(len(numbers)))

    bound = _lower_bound(loads, fixed, members, amounts)
    for _ in range(_MAX_PASSES):
        _redistribute(loads, quotas, members, amounts)
        proven = _lower_bound(loads, fixed, members, amounts)
        bound = max(bound, proven)
        if not len(loads) or loads.max() <= bound * _TOLERANCE:
            break

    shares = []
    for (_, candidates), quota in zip(demands, quotas, strict=True):
        share = dict(zip(candidates, quota.tolist(), strict=True))
        shares.append(share)
    largest = float(loads.max(initial=0.0))
    return Balanced(tuple(shares), largest, lower_bound=float(bound))


def _numbered(
    demands: Sequence[tuple[float, Sequence[Candidate]]], base: Mapping[Candidate, float]
) -> dict[Candidate, int]:
    """Number all candidates in the order of their first occurrence, those of `base` first."""
    index: dict[Candidate, int] = {}
    for name in base:
        index[name] = len(index)
    for _, candidates in demands:
        for name in candidates:
            index.setdefault(name, len(index))
    return index


def _redistribute(
    loads: np.ndarray, quotas: list[np.ndarray], members: Sequence[np.ndarray], amounts: Sequence[float]
) -> None:
    """Divide each demand anew, given the loads that the others leave; update `loads` and `quotas`."""
    for i, candidates in enumerate(members):
        loads[candidates] -= quotas[i]
        others = loads[candidates]
        quota = _fill(others, amounts[i])
        loads[candidates] += quota
        quotas[i] = quota


def _fill(loads: np.ndarray, amount: float) -> np.ndarray:
    """Return the additions, `amount` in total, that raise the lowest of `loads` to one level.

    Shapes: `[candidates]`, also the result.
    """
    ordered = np.sort(loads)
    num_loads = len(ordered)
    depth = np.arange(1, num_loads + 1)

    # The level that the amount reaches if the lowest `depth` loads are filled.
    totals = ordered.cumsum() + amount
    levels = totals / depth
    reached = np.flatnonzero(levels >= ordered)
    deepest = reached[-1]
    level = levels[deepest]
    missing: np.ndarray = np.maximum(level - loads, 0.0)
    return missing


def _lower_bound(
    loads: np.ndarray, base: np.ndarray, members: Sequence[np.ndarray], amounts: Sequence[float]
) -> float:
    """Return the best lower bound that the sets of the most loaded candidates prove.

    Shapes: `loads` and `base` are `[candidates]`.
    """
    best = 0.0
    largest = loads.max(initial=0.0)
    for slack in _SLACKS:
        chosen = loads >= largest * (1 - slack)
        if not chosen.any():
            continue
        # Demands whose candidates are all in the set can go nowhere else.
        forced = []
        for candidates, amount in zip(members, amounts):
            if chosen[candidates].all():
                forced.append(amount)
        mean = (sum(forced) + base[chosen].sum()) / chosen.sum()
        best = max(best, mean)
    return best
