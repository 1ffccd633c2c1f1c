"""Micro-batches: the budget, how full and how even they are, and the order of what they give."""

from __future__ import annotations

import itertools
import random
from math import ceil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.api.batch import PackedBatch, Sample, cu_seqlens_of
from realrl.ops.packing import first_fit_decreasing
from realrl.parallel.microbatch import microbatches, split

WEIGHTS = st.lists(st.integers(0, 60), max_size=40)


def efficiency(weights: list[int], max_tokens: int) -> float:
    """Tokens over the room of the micro-batches."""
    return sum(weights) / (len(microbatches(weights, max_tokens)) * max_tokens)


@settings(max_examples=300, deadline=None)
@given(WEIGHTS, st.integers(1, 80))
def test_every_item_once_within_the_budget(weights, max_tokens):
    """In the fewest micro-batches that first-fit finds, in order; what is too long goes alone."""
    micros = microbatches(weights, max_tokens)
    assert sorted(i for members in micros for i in members) == list(range(len(weights)))
    assert all(members == sorted(members) for members in micros) and micros == sorted(micros)
    assert len(micros) == len(first_fit_decreasing(weights, max_tokens))
    for members in micros:
        assert sum(weights[i] for i in members) <= max_tokens or len(members) == 1


@settings(max_examples=200, deadline=None)
@given(WEIGHTS, st.integers(1, 80))
def test_evening_is_no_worse_than_first_fit(weights, max_tokens):
    """The largest micro-batch has no more tokens than first-fit's."""
    fits = [sum(weights[i] for i in members) for members in first_fit_decreasing(weights, max_tokens)]
    evened = [sum(weights[i] for i in members) for members in microbatches(weights, max_tokens)]
    assert max(evened, default=0) <= max(max(fits, default=0), max_tokens)


def test_micro_batches_are_even_where_there_is_room():
    """First-fit alone leaves 100, 100 and 40."""
    assert [len(members) for members in microbatches([10] * 24, 100)] == [8, 8, 8]
    beside_one_too_long = microbatches([10] * 12 + [200] + [10] * 12, 100)
    assert sorted(map(len, beside_one_too_long)) == [1, 8, 8, 8] and [12] in beside_one_too_long


def test_a_batch_within_the_budget_is_one_micro_batch():
    """Nothing is moved."""
    assert microbatches([5, 1, 9], 15) == [[0, 1, 2]]
    assert microbatches([], 15) == []


BATCHES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 6)), max_size=16)
"""Samples: which prompt, how much of it, how many tokens follow."""


def made(samples: list[tuple[int, int, int]]) -> PackedBatch:
    """Token i of the batch is `100 * prompt + place` in a prompt, and a number of its own elsewhere."""
    fresh = itertools.count(1000)
    ids = [[100 * p + i for i in range(n)] + [next(fresh) for _ in range(more)] for p, n, more in samples]
    masks = [[False] * n + [True] * more for _, n, more in samples]
    tokens = {"input_ids": (ids, torch.long), "loss_mask": (masks, torch.bool)}
    return PackedBatch(
        tuple(Sample(7 * i, i) for i in range(len(samples))),
        cu_seqlens_of(map(len, ids)),
        {key: torch.tensor(sum(lists, []), dtype=dtype) for key, (lists, dtype) in tokens.items()},
    )


@settings(max_examples=200, deadline=None)
@given(BATCHES, st.integers(1, 30), st.booleans())
def test_each_sample_finds_its_tokens_in_one_micro_batch(samples, max_tokens, share_prompts):
    """Computed tokens, looked up and put together in the batch's order, are the batch's own."""
    batch = made(samples)
    found = {}
    for micro in split(batch, max_tokens, share_prompts=share_prompts):
        assert found.keys().isdisjoint(micro.batch.samples)
        computed = micro.ids[micro.index].split(micro.batch.lengths)
        found.update(zip(micro.batch.samples, computed, strict=True))

    together = [token for sample in batch.samples for token in found[sample].tolist()]
    assert together == batch["input_ids"].tolist()
    assert len(found) == len(batch)


@settings(max_examples=200, deadline=None)
@given(BATCHES, st.integers(1, 30))
def test_every_token_sees_what_it_sees_alone(samples, max_tokens):
    """The tokens of a segment and of its prefix are those of one sample, from its first to its last."""
    for micro in split(made(samples), max_tokens, share_prompts=True):
        bounds, ids = micro.segments.cu_seqlens.tolist(), micro.ids.tolist()
        runs = [ids[a:b] for a, b in zip(bounds, bounds[1:])]
        whole = [(runs[p] if p >= 0 else []) + run for p, run in zip(micro.segments.prefix.tolist(), runs)]
        assert all(ids.tolist() in whole for ids in micro.batch.unpacked("input_ids"))
        positions = micro.segments.positions()[micro.index]
        lengths = micro.batch.lengths
        assert positions.tolist() == [place for length in lengths for place in range(length)]


def test_a_shared_prompt_is_computed_once():
    """Three samples of a prompt of five tokens, one of another: 5 + 2 + 3 + 4 + 6 tokens, not 30."""
    batch = made([(0, 5, 2), (0, 5, 3), (1, 4, 2), (0, 5, 4)])
    (micro,) = split(batch, 100, share_prompts=True)
    assert (micro.num_tokens, batch.num_tokens) == (20, 30)
    assert [m.num_tokens for m in split(batch, 100, share_prompts=False)] == [30]


def test_samples_of_a_prompt_part_where_they_do_not_fit():
    """Each part computes the prompt for itself, within the budget."""
    micros = split(made([(0, 5, 3)] * 4), 12, share_prompts=True)
    assert sorted(micro.num_tokens for micro in micros) == [11, 11]


@pytest.mark.parametrize("num_samples", [512, 4096])
def test_a_heavy_tail_is_packed_to_97_percent(num_samples):
    """Rollouts of a reasoning model: log-normal about 1,100 tokens, cut off at 8,192, budget 16,384."""
    rng = random.Random(0)
    weights = [min(8192, 1 + int(rng.lognormvariate(7.0, 1.0))) for _ in range(num_samples)]
    assert efficiency(weights, 16384) >= 0.97
    assert len(microbatches(weights, 16384)) <= ceil(sum(weights) / 16384) + 1
