"""Rows of training steps from several data sets: shares, order, and the same rows after a resume."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from realrl.api.data import RowSet
from realrl.runtime.master.schedule import epoch_rows, spare_rows

SETS = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 40)), min_size=1, max_size=6)
"""The number of rows and the weight of each set."""


def sets_of(given_sets: list[tuple[int, int]]) -> list[RowSet]:
    """The sets, one set's rows after the other's."""
    sets = []
    begin = 0
    for number, (size, weight) in enumerate(given_sets):
        sets.append(RowSet(f"set{number}", range(begin, begin + size), weight))
        begin += size
    return sets


def steps_of(sets, batch_size, num_steps, seed=1, levels=()) -> list[list[int]]:
    num_rows = sets[-1].rows.stop
    return [epoch_rows(num_rows, batch_size, step, seed, levels, sets) for step in range(num_steps)]


def set_of(row, sets) -> str:
    (found,) = [each.name for each in sets if row in each.rows]
    return found


@given(SETS, st.integers(1, 9), st.integers(1, 40))
def test_all_batches_so_far_have_each_sets_share(given_sets, batch_size, num_steps):
    """To less than one row, whatever the weights, after every batch."""
    sets = sets_of(given_sets)
    total = sum(each.weight for each in sets)
    counts = Counter()
    for step, rows in enumerate(steps_of(sets, batch_size, num_steps), 1):
        assert len(rows) == batch_size
        counts.update(set_of(row, sets) for row in rows)
        for each in sets:
            exact = Fraction(step * batch_size * each.weight, total)
            assert abs(counts[each.name] - exact) < 1


@given(SETS, st.integers(1, 9), st.integers(0, 99))
def test_each_row_of_a_set_comes_once_before_any_comes_again(given_sets, batch_size, seed):
    sets = sets_of(given_sets)
    stream = [row for rows in steps_of(sets, batch_size, 30, seed) for row in rows]
    for each in sets:
        own = [row for row in stream if row in each.rows]
        for first in range(0, len(own), len(each.rows)):
            epoch = own[first : first + len(each.rows)]
            assert len(set(epoch)) == len(epoch)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(1, 9))
def test_with_weights_of_their_sizes_all_rows_come_equally_often(sizes, batch_size):
    """Each once in as many places as there are rows, as if the sets were one."""
    sets = sets_of([(size, size) for size in sizes])
    num_rows = sum(sizes)
    stream = [row for rows in steps_of(sets, batch_size, 3 * num_rows) for row in rows]
    for first in range(0, len(stream), num_rows):
        epoch = stream[first : first + num_rows]
        assert len(epoch) < num_rows or sorted(epoch) == list(range(num_rows))


@given(SETS, st.integers(1, 9), st.integers(0, 50))
def test_a_steps_rows_depend_on_no_other_step(given_sets, batch_size, step):
    """So that a run resumes exactly; and on the seed."""
    sets = sets_of(given_sets)
    alone = epoch_rows(sets[-1].rows.stop, batch_size, step, 1, (), sets)
    assert alone == steps_of(sets, batch_size, step + 1)[step]


def test_another_set_does_not_change_a_sets_order():
    """Nor does another weight."""
    alone = [RowSet("a", range(20), 1)]
    both = [RowSet("a", range(20), 2), RowSet("b", range(20, 50), 5)]
    order = [row for rows in steps_of(alone, 4, 5) for row in rows]
    mixed = [row for rows in steps_of(both, 4, 30) for row in rows if row in both[0].rows]
    assert mixed[:20] == order and sorted(order) == list(range(20)) and order != sorted(order)
    assert order != [row for rows in steps_of(alone, 4, 5, seed=2) for row in rows]


def test_a_sets_epochs_are_in_different_orders():
    (each,) = sets_of([(20, 1)])
    first, second = steps_of([each], 20, 2)
    assert sorted(first) == sorted(second) == list(range(20)) and first != second


def test_each_set_goes_from_its_lowest_level_to_its_highest():
    sets = sets_of([(6, 1), (9, 3)])
    levels = [float(row % 3) for row in range(15)]
    stream = [row for rows in steps_of(sets, 4, 9, levels=levels) for row in rows]
    for each in sets:
        own = [row for row in stream if row in each.rows]
        epoch = own[: len(each.rows)]
        assert [levels[row] for row in epoch] == sorted(levels[row] for row in each.rows)


@given(SETS, st.integers(1, 6), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_spare_rows_are_others_of_the_steps_sets(given_sets, batch_size, number, step, has_levels):
    """As many as are wanted or there are, each once; of the step's levels; the same when asked again."""
    sets = sets_of(given_sets)
    num_rows = sets[-1].rows.stop
    levels = [float(row % 2) for row in range(num_rows)] if has_levels else []
    rows = epoch_rows(num_rows, batch_size, step, 1, levels, sets)
    spare = spare_rows(num_rows, rows, number, step, 1, levels, sets)
    kinds = {(set_of(row, sets), levels[row] if levels else None) for row in rows}
    fitting = set()
    for row in set(range(num_rows)) - set(rows):
        if (set_of(row, sets), levels[row] if levels else None) in kinds:
            fitting.add(row)
    assert len(set(spare)) == len(spare) == min(number, len(fitting)) and set(spare) <= fitting
    assert spare == spare_rows(num_rows, rows, number, step, 1, levels, sets)


def test_the_first_spare_rows_are_of_the_sets_of_the_steps_rows():
    """One for each place, so that a batch that is redrawn as a whole keeps its shares."""
    sets = sets_of([(40, 3), (40, 1)])
    (rows,) = steps_of(sets, 8, 1)
    spare = spare_rows(80, rows, 8, 0, 1, (), sets)
    assert [set_of(row, sets) for row in spare] == [set_of(row, sets) for row in rows]
