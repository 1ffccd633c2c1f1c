"""What stands out in a global batch: tokens by a value, as their entropy, and responses by their reward.

Each data-parallel rank holds a part of the batch. Which tokens are found does not depend on the split: ranks
compare their own tokens with a threshold that they find together.

Shapes: R response tokens of this rank.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from realrl.algorithms.normalise import Reduce

_DIGIT_BITS = 8
_NUM_DIGITS = 1 << _DIGIT_BITS
_WORD_BITS = 32


def largest(values: Tensor, share: float, reduce: Reduce) -> Tensor:
    """Return the tokens with the largest values: a `share` of the global batch's, at least one.

    Tokens that are equal to the least one that is found are found too. A share of 0 finds none.

    Shapes: values float32 `[R]`, without NaN; returns bool `[R]`.
    Collective: over the ranks of `reduce`.
    """
    number = float(reduce(torch.tensor(float(len(values)), dtype=torch.double)))
    wanted = max(1, int(share * number)) if share else 0
    if not wanted or not number:
        return torch.zeros_like(values, dtype=torch.bool)
    ranked = _in_order(values)
    return ranked >= _kth_largest(ranked, wanted, reduce)


def covariances(logprobs: Tensor, advantages: Tensor, reduce: Reduce) -> Tensor:
    """Return what each token adds to the covariance of log-probability and advantage over the global batch.

    Shapes: logprobs and advantages `[R]`; returns float32 `[R]`.
    Collective: over the ranks of `reduce`.
    Source: Cui et al. 2025, arXiv:2505.22617, eq. 9.
    """
    ones = torch.ones_like(logprobs)
    columns = torch.stack((logprobs, advantages, ones), dim=1).double()
    own_totals = columns.sum(dim=0)
    totals = reduce(own_totals)
    number = totals[2].clamp(min=1)
    means = totals[:2] / number
    from_means = columns[:, :2] - means
    return from_means.prod(dim=1).float()


def best_in_group(
    rewards: Tensor, counts: Tensor, numbers: Sequence[int], num_groups: int, group_size: int, reduce: Reduce
) -> Tensor:
    """Return whether each sample has the largest reward in its group; of equal ones, only the first has it.

    Samples that do not count are not looked at. The samples of a group may be on several ranks.

    `numbers` are the samples' own, from 0 to `num_groups * group_size - 1` over the global batch, by group.

    Shapes: rewards `[B]`, counts bool `[B]`; returns bool `[B]`.
    Collective: over the ranks of `reduce`.
    """
    places = torch.tensor(list(numbers), dtype=torch.long)
    columns = torch.stack((rewards.double().where(counts, 0.0), counts.double()))
    nothing = torch.zeros(2, num_groups * group_size, dtype=torch.double)
    own = nothing.index_add(1, places, columns)
    # Each number is one sample's, so that the sum over ranks is a table of all samples.
    of_all, is_counted = reduce(own)
    compared = of_all.where(is_counted > 0, -torch.inf)
    best_of_groups = compared.view(num_groups, group_size).argmax(dim=1)
    first_of_groups = group_size * torch.arange(num_groups)
    best = best_of_groups + first_of_groups
    group = places // group_size
    is_best: Tensor = (places == best[group]) & counts
    return is_best


def _in_order(values: Tensor) -> Tensor:
    """Return numbers from 0 to 2^32 - 1 in the order of the values: int64.

    The bits of a float32, read as an integer, are in the order of its absolute value; the first is its sign.
    """
    # -0.0 and 0.0 are one value.
    bits = (values.float() + 0.0).contiguous().view(torch.int32).long()
    sign_and_above = 1 << (_WORD_BITS - 1)
    return torch.where(bits >= 0, bits + sign_and_above, -1 - bits)


def _kth_largest(ranked: Tensor, k: int, reduce: Reduce) -> int:
    """Return the k-th largest of all ranks' numbers, digit by digit, from the highest."""
    found = 0
    for shift in range(_WORD_BITS - _DIGIT_BITS, -1, -_DIGIT_BITS):
        # Those that have the digits found so far.
        above = shift + _DIGIT_BITS
        candidates = ranked[(ranked >> above) == (found >> above)]
        digits = (candidates >> shift) & (_NUM_DIGITS - 1)
        own = digits.bincount(minlength=_NUM_DIGITS).double()
        counts = reduce(own)
        from_top = counts.flip(0).cumsum(0)
        place = int(torch.searchsorted(from_top, float(k)))
        digit = _NUM_DIGITS - 1 - place
        k -= int(from_top[place] - counts[digit])
        found |= digit << shift
    return found
