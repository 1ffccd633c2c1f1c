"""Sharing a batch out."""

import random

from hypothesis import given
from hypothesis import strategies as st

from realrl.program.balance import assign

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 4))
def test_no_rank_is_far_above_another(lengths, dp, num_minibatches):
    """In each mini-batch, loads differ by at most the longest sample, and none idles if there is enough."""
    dp_ranks = assign(lengths, dp, num_minibatches=num_minibatches)
    for minibatch in range(num_minibatches):
        members = [i for i in range(len(lengths)) if i * num_minibatches // len(lengths) == minibatch]
        loads = [sum(lengths[i] for i in members if dp_ranks[i] == r) for r in range(dp)]
        assert max(loads) - min(loads) <= max((lengths[i] for i in members), default=0)
        assert len({dp_ranks[i] for i in members}) == min(dp, len(members))


@given(LENGTHS, st.integers(1, 5), st.integers(1, 8))
def test_groups_stay_together(lengths, dp, group_size):
    """Neighbours of one group get one rank."""
    dp_ranks = assign(lengths, dp, group_size=group_size)
    for first in range(0, len(lengths), group_size):
        assert len(set(dp_ranks[first : first + group_size])) == 1


@given(LENGTHS, st.integers(1, 5), st.integers(1, 8))
def test_groups_are_shared_out_by_their_tokens(lengths, dp, group_size):
    """Loads differ by at most the longest group, and none idles if there are enough groups."""
    dp_ranks = assign(lengths, dp, group_size=group_size)
    groups = [range(i, min(i + group_size, len(lengths))) for i in range(0, len(lengths), group_size)]
    loads = [sum(lengths[i] for i in range(len(lengths)) if dp_ranks[i] == r) for r in range(dp)]
    assert max(loads) - min(loads) <= max(sum(lengths[i] for i in group) for group in groups)
    assert len(set(dp_ranks)) == min(dp, len(groups))


def test_a_group_weighs_what_all_its_samples_do():
    """By their first samples alone, one rank would get three of these groups."""
    dp_ranks = assign([9, 1, 1, 9, 5, 5, 5, 5], 2, group_size=2)
    assert sorted(dp_ranks) == [0] * 4 + [1] * 4


def test_a_heavy_tail_is_shared_out_evenly():
    """512 log-normal lengths over 8 ranks: none has a tenth of a percent over the mean."""
    rng = random.Random(0)
    lengths = [min(8192, 1 + int(rng.lognormvariate(7.0, 1.0))) for _ in range(512)]
    loads = [0] * 8
    for length, dp_rank in zip(lengths, assign(lengths, 8), strict=True):
        loads[dp_rank] += length
    assert max(loads) * 8 < 1.001 * sum(lengths)


def test_samples_of_no_tokens_are_spread_too():
    """Empty samples still cost a turn."""
    assert sorted(assign([0, 0, 0, 0], 2)) == [0, 0, 1, 1]
