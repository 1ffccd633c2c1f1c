"""Sharing a batch out."""

from hypothesis import given
from hypothesis import strategies as st

from realrl.runtime.balance import assign

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


def test_samples_of_no_tokens_are_spread_too():
    """Empty samples still cost a turn."""
    assert sorted(assign([0, 0, 0, 0], 2)) == [0, 0, 1, 1]
