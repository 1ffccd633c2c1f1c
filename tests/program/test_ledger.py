"""A call's samples on its ranks: whole rows where the call asks for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.batch import Sample
from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.messages import Done
from realrl.program.ledger import Ledger

GENERATE = ModelFunctionCall("gen", "actor", CallKind.GENERATE, ("prompts",), ("input_ids",))


def reward(*, whole_rows: bool) -> ModelFunctionCall:
    return ModelFunctionCall(
        "reward", None, CallKind.COMPUTE, ("input_ids",), ("rewards",), whole_rows=whole_rows
    )


def generated(lengths: list[int], group_size: int) -> Ledger:
    """Return a ledger of responses of some lengths, in groups, all made by rank 0."""
    samples = [Sample(i, i // group_size) for i in range(len(lengths))]
    rows = {sample.row: 1 for sample in samples}
    ledger = Ledger(samples, rows, group_size, spare_rows=[1000, 1001])
    ledger.row_lengths = {**rows, 1000: 1, 1001: 1}
    ledger.record_outputs(0, _made("input_ids", {i: length for i, length in enumerate(lengths)}))
    return ledger


def _made(key: str, lengths: dict[int, int], rejected: tuple[int, ...] = ()) -> Done:
    return Done(
        seq=0,
        started_s=0.0,
        ended_s=0.0,
        samples=tuple(lengths),
        lengths={key: tuple(lengths.values())},
        dtypes={key: "int64"},
        rejected=rejected,
    )


def placement(dp: int) -> Placement:
    return Placement(DeviceMesh(tuple(range(dp))), ParallelLayout(dp=dp))


GROUPED = st.integers(1, 6).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.integers(1, 8).flatmap(
            lambda groups: st.lists(st.integers(1, 50), min_size=groups * size, max_size=groups * size)
        ),
    )
)


@given(GROUPED, st.integers(1, 4))
def test_samples_of_a_row_are_on_one_rank_where_a_call_asks_for_it(grouped, dp):
    """Each sample once, and in order."""
    group_size, lengths = grouped
    shares = generated(lengths, group_size).shares(reward(whole_rows=True), placement(dp))
    ranks_of_row: dict[int, set[int]] = {}
    for rank, share in enumerate(shares):
        assert [sample.id for sample in share] == sorted(sample.id for sample in share)
        for sample in share:
            ranks_of_row.setdefault(sample.row, set()).add(rank)
    assert all(len(ranks) == 1 for ranks in ranks_of_row.values())
    assert sorted(sample.id for share in shares for sample in share) == list(range(len(lengths)))


def test_else_samples_are_shared_out_by_their_tokens():
    """Of one group, too: that is what the contract changes."""
    split = generated([5, 5, 5, 5], 4).shares(reward(whole_rows=False), placement(2))
    assert [len(share) for share in split] == [2, 2]
    whole = generated([5, 5, 5, 5], 4).shares(reward(whole_rows=True), placement(2))
    assert sorted(len(share) for share in whole) == [0, 4]


def test_rows_that_are_resampled_are_whole_too():
    """Only those that another row replaces are rewarded again, each row on one rank."""
    call = reward(whole_rows=True)
    ledger = generated([3] * 12, 3)
    ledger.shares(GENERATE, placement(2))
    ledger.shares(call, placement(2))
    ledger.record_outputs(0, _made("rewards", dict.fromkeys(range(12), 1), rejected=(3, 4, 5, 9, 10, 11)))
    ledger.redraw((GENERATE, call))
    shares = ledger.shares(call, placement(2))
    assert sorted([sample.row for sample in share] for share in shares) == [[1000] * 3, [1001] * 3]


def test_whole_rows_are_in_one_minibatch():
    with pytest.raises(ValueError, match="call advantages: whole_rows and 2 mini-batches do not go together"):
        ModelFunctionCall("advantages", None, CallKind.COMPUTE, num_minibatches=2, whole_rows=True)
