"""What is written of a sample besides its texts."""

from __future__ import annotations

import pytest
import torch

from realrl.api.batch import Sample, pack
from realrl.recipes.parts.sample_records import (
    MOST_TOKENS,
    MOST_WITH_TOKENS,
    advantage_records,
    place_of,
    token_texts,
)
from tests.tiny import tiny_tokenizer


def test_a_place_is_of_one_sample():
    """No two samples of a step share it, though they are of one row."""
    places = [tuple(place_of(Sample(number, row=0), 4).items()) for number in range(12)]
    assert len(set(places)) == 12 and dict(places[7]) == {"row": 0, "group": 1, "sample": 3}


def test_tokens_are_a_bounded_number_of_texts_that_join_to_the_response():
    tokenizer = tiny_tokenizer()
    ids = torch.tensor(tokenizer.encode("so 7") + [tokenizer.eos_token_id])
    assert token_texts(tokenizer, ids) == [*"so 7", "<eos>"]
    assert len(token_texts(tokenizer, ids.repeat(MOST_TOKENS))) == MOST_TOKENS


def _trained(lengths: list[int], advantages: list[list[float]]):
    """Prompts of one token, then responses."""
    samples = [Sample(i, row=i) for i in range(len(lengths))]
    tokens = {
        "loss_mask": [torch.tensor([False] + [True] * n) for n in lengths],
        "advantages": [torch.tensor([0.0, *given]) for given in advantages],
        "logprobs": [torch.tensor([0.0] + [-1.23456] * n) for n in lengths],
    }
    return pack(samples, tokens)


def test_an_advantage_is_the_mean_over_the_response():
    """Without the prompt; an empty response has none."""
    records = advantage_records(_trained([2, 0, 1], [[1.0, 4.0], [], [-3.0]]), 1, 3)
    assert [(r["row"], r["advantage"]) for r in records] == [(0, pytest.approx(2.5)), (2, -3.0)]


def test_tokens_have_advantages_of_their_own_where_these_differ():
    first, second = advantage_records(_trained([2, 2], [[1.0, 4.0], [3.0, 3.00001]]), 1, 2)
    assert first["advantages"] == [1.0, 4.0] and first["logprobs"] == [-1.235, -1.235]
    (zero,) = advantage_records(_trained([2], [[-7e-8, 0.0]]), 1, 1)
    assert "advantages" not in zero
    assert "advantages" not in second and second["advantage"] == pytest.approx(3.0, rel=1e-4)


def test_only_the_first_samples_of_a_step_have_tokens():
    count = MOST_WITH_TOKENS + 3
    records = advantage_records(_trained([1] * count, [[1.0]] * count), 1, count)
    assert ["logprobs" in record for record in records] == [True] * MOST_WITH_TOKENS + [False] * 3
