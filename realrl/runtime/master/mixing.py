"""Rows of a training step from several data sets: each batch has every set's share.

    turns       a b a a b a | a b a a b a | ...     the set that each place of the stream is for
    set a       its rows shuffled, shuffled anew, ...
    set b       its rows shuffled, shuffled anew, ...
    stream      the next row of that set, place by place; a step takes the next `batch_size` places

All is a function of the step, so that a run that resumes reads the same rows.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence

from realrl.api.data import RowSet
from realrl.base.seeding import derive_seed


class Turns:
    """The set that each place of the stream is for, by the quota method.

    After any number of places n, a set with the share p of all weights had floor(n p) or ceil(n p) of them.

    Source: Balinski and Young 1975, "The Quota Method of Apportionment", The American Mathematical Monthly
        82(7): of the sets whose number of places is below n p, the one with the largest weight per place,
        counted with the place to be given. Shares are compared as whole numbers, without rounding.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = weights
        self._period = sum(weights)
        """The number of places after which each set had exactly its share, and everything begins anew."""
        self._turns: list[int] = []
        """The turns of the first period, as far as they were asked for."""
        self._counts = [0] * len(weights)
        """The number of these turns by set."""

    def of(self, first: int, number: int) -> list[int]:
        """Return the sets of `number` places from `first` on."""
        places = [place % self._period for place in range(first, first + number)]
        self._extend(max(places) + 1)
        return [self._turns[place] for place in places]

    def before(self, first: int) -> list[int]:
        """Return how many places each set had before the place `first`."""
        periods, rest = divmod(first, self._period)
        self._extend(rest)
        begun = self._turns[:rest]
        counts = []
        for number, weight in enumerate(self._weights):
            counts.append(periods * weight + begun.count(number))
        return counts

    def _extend(self, length: int) -> None:
        """Give out turns until there are `length` of them."""
        while len(self._turns) < length:
            turn = self._next()
            self._turns.append(turn)
            self._counts[turn] += 1

    def _next(self) -> int:
        """Return the set that has the next turn."""
        place = len(self._turns) + 1
        best: int | None = None
        for number, weight in enumerate(self._weights):
            # One more would be above this set's share of the places, rounded up.
            if self._counts[number] * self._period >= place * weight:
                continue
            if best is None or self._is_before(number, best):
                best = number
        assert best is not None, "the shares sum to 1, so that some set had less than its share"
        return best

    def _is_before(self, number: int, other: int) -> bool:
        """Return whether a set has more weight per place than another one; of equal ones, the first wins."""
        ours = self._weights[number] * (self._counts[other] + 1)
        theirs = self._weights[other] * (self._counts[number] + 1)
        return ours > theirs


@functools.lru_cache(maxsize=8)
def _turns_of(weights: tuple[int, ...]) -> Turns:
    """Return the turns of sets with these weights; they are the same whoever asks, and are made only once."""
    return Turns(weights)


def mixed_rows(
    sets: Sequence[RowSet], batch_size: int, step: int, seed: int, levels: Sequence[float]
) -> list[int]:
    """Return the rows of a training step: of each set its share, every row once before any comes again.

    With `levels`, one per row, each set goes from its lowest to its highest.
    """
    weights = tuple(each.weight for each in sets)
    turns = _turns_of(weights)
    first = step * batch_size
    taken = turns.before(first)
    wanted = turns.of(first, batch_size)
    streams = []
    for number, each in enumerate(sets):
        stream = _stream(each, taken[number], wanted.count(number), seed, levels)
        streams.append(iter(stream))
    return [next(streams[number]) for number in wanted]


def mixed_spares(
    sets: Sequence[RowSet],
    rows: Sequence[int],
    number: int,
    step: int,
    seed: int,
    levels: Sequence[float],
) -> tuple[int, ...]:
    """Return up to `number` random rows that are not a step's own, of the sets of `rows` in their order.

    With `levels`, a set's spare rows are of the levels that its own rows in the step have.
    """
    generator = random.Random(derive_seed(seed, "spare rows of sets", step))
    order = []
    others: dict[str, list[int]] = {}
    for row in rows:
        each = _set_of(row, sets)
        order.append(each.name)
        if each.name not in others:
            found = _others(each, rows, levels)
            generator.shuffle(found)
            others[each.name] = found
    spare: list[int] = []
    while len(spare) < number and any(others.values()):
        for name in order:
            if others[name] and len(spare) < number:
                spare.append(others[name].pop())
    return tuple(spare)


def _stream(each: RowSet, first: int, number: int, seed: int, levels: Sequence[float]) -> list[int]:
    """Return `number` rows of a set's own stream of epochs, from its row `first` on."""
    size = len(each.rows)
    first_epoch = first // size
    stream: list[int] = []
    begin = first - first_epoch * size
    epoch = first_epoch
    while len(stream) < begin + number:
        stream += _shuffled(each, epoch, seed, levels)
        epoch += 1
    return stream[begin : begin + number]


def _shuffled(each: RowSet, epoch: int, seed: int, levels: Sequence[float]) -> list[int]:
    """Return the rows of a set in the order of one of its epochs."""
    rows = list(each.rows)
    # By the name: another set more or less does not change this one's order.
    generator = random.Random(derive_seed(seed, "rows of a set", each.name, epoch))
    generator.shuffle(rows)
    return sorted(rows, key=levels.__getitem__) if levels else rows


def _set_of(row: int, sets: Sequence[RowSet]) -> RowSet:
    """Return the set that a row is from."""
    for each in sets:
        if row in each.rows:
            return each
    raise AssertionError(f"row {row} is in none of the sets")


def _others(each: RowSet, rows: Sequence[int], levels: Sequence[float]) -> list[int]:
    """Return the rows of a set that are not among `rows`; with `levels`, those of the levels of its rows."""
    own = {row for row in rows if row in each.rows}
    others = [row for row in each.rows if row not in own]
    if levels:
        wanted = {levels[row] for row in own}
        others = [row for row in others if levels[row] in wanted]
    return others
