"""pass@k, and intervals of means."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.algorithms.pass_at_k import (
    bootstrap_intervals,
    majority,
    mean_intervals,
    pass_at_k,
    powers_of_two,
)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(num_samples, data):
    """Of all subsets of k samples, counted one by one."""
    num_right, k = data.draw(st.integers(0, num_samples)), data.draw(st.integers(1, num_samples))
    subsets = list(combinations([i < num_right for i in range(num_samples)], k))
    expected = sum(map(any, subsets)) / len(subsets)
    assert pass_at_k(num_samples, num_right, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("most", "expected"), [(0, []), (1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_powers_of_two_end_with_the_number_itself(most, expected):
    assert powers_of_two(most) == expected


def test_an_interval_is_that_of_a_normal_mean():
    """Where there are many problems: 1.96 standard errors to each side; of each statistic its own."""
    values = np.random.default_rng(3).normal(size=(2000, 2)) * (1.0, 5.0) + (0.0, 7.0)
    low, high = bootstrap_intervals(values)
    mean, error = values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))
    np.testing.assert_allclose(low, mean - 1.96 * error, atol=0.15 * error.max(), rtol=0)
    np.testing.assert_allclose((high - low) / error, [2 * 1.96] * 2, rtol=0.1)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Of 200 draws of 60 problems that are solved with probability 0.3, about 190."""
    draws = np.random.default_rng(5).random((60, 200)) < 0.3
    low, high = bootstrap_intervals(draws.astype(float))
    assert 0.9 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.99


def test_the_same_values_have_the_same_interval():
    """And those that do not vary one of no width."""
    values = np.array([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    (low, high), again = bootstrap_intervals(values), bootstrap_intervals(values)
    assert low[0] < high[0] and (low[1], high[1]) == (1.0, 1.0)
    np.testing.assert_array_equal(np.array(again), np.array([low, high]))


@given(st.lists(st.sampled_from(["right", "a", "b", None]), max_size=7))
def test_a_majority_is_what_breaking_ties_at_random_gives(votes):
    """Each answer that no other has more votes than is counted once; None votes for nothing."""
    cast = [vote for vote in votes if vote is not None]
    winners = [a for a in set(cast) if all(cast.count(a) >= cast.count(b) for b in cast)]
    expected = winners.count("right") / len(winners) if winners else 0.0
    assert majority(votes, "right") == pytest.approx(expected)


def test_intervals_of_columns_are_those_of_their_values():
    """The same resamples for each column, so a column that is twice another has twice its interval."""
    values = np.random.default_rng(1).random(30).tolist()
    found = mean_intervals({"one": values, "two": [2 * value for value in values]})
    low, high = bootstrap_intervals(np.array(values)[:, None])
    assert found["one"] == pytest.approx((np.mean(values), low[0], high[0]))
    assert found["two"] == pytest.approx([2 * number for number in found["one"]])
