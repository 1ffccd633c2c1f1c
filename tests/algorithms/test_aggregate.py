"""What each token counts: the definitions, one by one, and over any split of the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.algorithms.aggregate import token_weights
from realrl.api.batch import cu_seqlens_of
from tests.algorithms.splits import run_ranks

KINDS = ("token", "sequence", "prompt", "constant")


def weights_of(
    masks: list[torch.Tensor], reduce, aggregation: str, numbers: list[int] | None = None
) -> list[torch.Tensor]:
    """Two sequences have one prompt: the first two, and so on; `numbers` are those of the sequences."""
    mask = torch.cat(masks) if masks else torch.zeros(0, dtype=torch.bool)
    cu_seqlens = cu_seqlens_of(map(len, masks))
    groups = torch.tensor(range(len(masks)) if numbers is None else numbers, dtype=torch.long) // 2
    options = {"aggregation": aggregation, "max_new_tokens": 9, "groups": groups, "num_groups": 9}
    return list(token_weights(mask, cu_seqlens, reduce, **options).split([len(m) for m in masks]))


@pytest.mark.parametrize("aggregation", KINDS)
def test_a_weighted_sum_is_the_mean_that_is_asked_for(aggregation):
    """Over tokens; over sequences, or prompts, of their means; over sequences of their sums by a constant. No
    response, no say."""
    masks = [torch.tensor(m, dtype=torch.bool) for m in ([0, 1, 1, 1], [0, 0], [0, 1], [1, 0, 1])]
    losses = [torch.arange(len(m)) + 10.0 * i for i, m in enumerate(masks)]
    chosen = [loss[mask].tolist() for loss, mask in zip(losses, masks) if mask.any()]
    expected = {
        "token": sum(map(sum, chosen)) / sum(map(len, chosen)),
        "sequence": sum(sum(x) / len(x) for x in chosen) / 3,
        "prompt": (sum(chosen[0]) / len(chosen[0]) + sum(map(sum, chosen[1:])) / sum(map(len, chosen[1:])))
        / 2,
        "constant": sum(sum(x) / 9 for x in chosen) / 3,
    }[aggregation]
    weights = weights_of(masks, lambda x: x, aggregation)
    found = sum(float((w * loss).sum()) for w, loss in zip(weights, losses))
    assert found == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=6), max_size=8),
    st.integers(1, 3),
    st.sampled_from(KINDS),
    st.randoms(use_true_random=False),
)
def test_weights_do_not_depend_on_who_holds_which_sequence(rows, num_ranks, aggregation, random):
    """Nor on their order."""
    masks = [torch.tensor(row, dtype=torch.bool) for row in rows]
    owners = [random.randrange(num_ranks) for _ in masks]
    order = random.sample(range(len(masks)), len(masks))

    def work(rank, reduce):
        mine = [i for i in order if owners[i] == rank]
        return dict(zip(mine, weights_of([masks[i] for i in mine], reduce, aggregation, mine), strict=True))

    found = {i: w for part in run_ranks(num_ranks, work) for i, w in part.items()}
    for i, expected in enumerate(weights_of(masks, lambda x: x, aggregation)):
        assert torch.equal(found[i], expected)


def test_nothing_at_all_weighs_nothing():
    assert weights_of([torch.zeros(3, dtype=torch.bool)], lambda x: x, "token")[0].tolist() == [0, 0, 0]
