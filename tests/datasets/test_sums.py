from __future__ import annotations

import re

from realrl.datasets.sums import sums


def test_the_two_sides_are_every_sum_once():
    rows = sums(held_out=False) + sums(held_out=True)
    assert sorted((row.a, row.b) for row in rows) == [(a, b) for a in range(10) for b in range(10)]


def test_no_held_out_sum_is_a_training_sum_turned_round():
    training = {frozenset((row.a, row.b)) for row in sums(held_out=False)}
    held_out = {frozenset((row.a, row.b)) for row in sums(held_out=True)}
    assert training and held_out and not training & held_out


def test_the_split_and_its_order_never_change():
    """Figures of earlier runs stay comparable."""
    assert (len(sums(held_out=False)), len(sums(held_out=True))) == (70, 30)
    assert [(row.a, row.b) for row in sums(held_out=True)[:3]] == FIRST_HELD_OUT


def test_each_solution_is_the_sum_of_its_prompt():
    for row in sums(held_out=True):
        assert int(row.solution) == sum(map(int, re.findall(r"\d+", row.prompt)))


FIRST_HELD_OUT = [(8, 5), (0, 0), (5, 0)]
