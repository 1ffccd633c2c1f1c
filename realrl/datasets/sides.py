"""Loads the two sides of a run's data; the training side may consist of several data sets.

data.sets: a, b ──▶ load each ──▶ one data set: rows of a, rows of b ──▶ sets: a 0..n, b n..m, weights
data.eval_path ──▶ load       ──▶ held-out rows, with none of the examples
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, TypeVar

from realrl.api.data import DataConfig, DataPart, RowSet
from realrl.datasets.encode import EncodedRows
from realrl.datasets.end_tokens import end_of_response
from realrl.datasets.examples import load_examples, question_text

SomeRows = TypeVar("SomeRows", bound=EncodedRows)

Load = Callable[[DataPart, bool], SomeRows]
"""`(part, held_out) -> rows`."""


def load_sides(data: DataConfig, tokenizer: Any, load: Load[SomeRows]) -> tuple[SomeRows, SomeRows | None]:
    """Return the training rows of `data`, and its held-out rows or None.

    Raises:
        ValueError: what `load` raises; sets that do not go together; or an example that is held out.
    """
    training = load_training(data, tokenizer, load)
    if not data.held_out_path:
        return training, None
    held_out = load(data.whole, True)
    check_no_example_is_held_out([data.whole, *data.parts()], held_out)
    return training, held_out


def load_training(data: DataConfig, tokenizer: Any, load: Load[SomeRows]) -> SomeRows:
    """Return the training rows of `data`, those of several sets one set after the other.

    Raises:
        ValueError: what `load` raises; sets that share a `query_id`, or whose responses end differently.
    """
    if not data.sets:
        return load(data.whole, False)
    loaded = []
    for part in data.parts():
        with _naming(part):
            _check_same_end(data, part, tokenizer)
            rows = load(part, False)
            loaded.append(rows)
    _check_distinct_ids(loaded)
    return _joined(data, loaded)


def check_no_rewards(data: DataConfig) -> None:
    """Check that no set has a reward, for a recipe that learns from rows as they are.

    Raises:
        ValueError: a set has one.
    """
    for name, each in data.sets.items():
        if each.reward is not None:
            raise ValueError(
                f"data.sets.{name}.reward: this recipe learns from rows as they are, without rewards; leave"
                " it out"
            )


@contextmanager
def _naming(part: DataPart) -> Iterator[None]:
    """Prefix errors that name no key with the section of a set."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith("data."):
            raise
        raise ValueError(f"{part.section}: {error}") from None


def _check_same_end(data: DataConfig, part: DataPart, tokenizer: Any) -> None:
    """Check that a set's template ends responses as that of the whole run does: generation has one end."""
    if part.data.template == data.template:
        return
    ours = end_of_response(tokenizer, data.template)
    theirs = end_of_response(tokenizer, part.data.template)
    if ours == theirs:
        return
    shown = tokenizer.convert_ids_to_tokens([token for token in (theirs, ours) if token is not None])
    raise ValueError(
        f"{part.section}.template: {part.data.template} and data.template={data.template} end responses"
        f" differently ({' and '.join(shown)}); set data.template to one that ends them as the sets' do"
    )


def _check_distinct_ids(loaded: Sequence[EncodedRows]) -> None:
    """Check that no two sets have a row of one `query_id`."""
    first_places: dict[str, tuple[int, str]] = {}
    for number, rows in enumerate(loaded):
        for row in rows.rows:
            first_number, first_place = first_places.setdefault(row.query_id, (number, row.place))
            if first_number != number:
                raise ValueError(
                    f"data.sets: {row.place} and {first_place} are of different sets and have one query_id,"
                    f" {row.query_id!r}; leave one of them out, or name another field as"
                    f" data.sets.{row.source}.fields.query_id"
                )


def _joined(data: DataConfig, loaded: Sequence[SomeRows]) -> SomeRows:
    """Return the rows of all sets as one data set, with notes on each set and on their shares."""
    weights = _whole_weights(data, [len(rows) for rows in loaded])
    sets = []
    notes = []
    begin = 0
    for name, rows, weight in zip(data.sets, loaded, weights, strict=True):
        end = begin + len(rows)
        sets.append(RowSet(name, range(begin, end), weight))
        notes += [f"data.sets.{name}: {note}" for note in rows.notes]
        begin = end
    joined, *others = loaded
    for other in others:
        joined.append(other)
    joined.sets = tuple(sets)
    joined.notes = [_note_of_shares(sets), *notes]
    return joined


def _whole_weights(data: DataConfig, sizes: Sequence[int]) -> list[int]:
    """Return each set's weight as the least whole numbers in the same proportions.

    Without weights, they are the sets' sizes.
    """
    given = []
    for each, size in zip(data.sets.values(), sizes, strict=True):
        # As it is written: 0.1 is a tenth, and not the nearest binary fraction.
        weight = Fraction(size) if each.weight is None else Fraction(str(each.weight))
        given.append(weight)
    common = math.lcm(*[weight.denominator for weight in given])
    whole = [int(weight * common) for weight in given]
    divisor = math.gcd(*whole)
    return [weight // divisor for weight in whole]


def _note_of_shares(sets: Sequence[RowSet]) -> str:
    """Return how many rows each set has, and its share of every batch."""
    total = sum(each.weight for each in sets)
    shown = []
    for each in sets:
        share = each.weight / total
        shown.append(f"{each.name} {len(each.rows):,} rows, {share:.1%} of each batch")
    return f"data.sets: {'; '.join(shown)}"


def check_no_example_is_held_out(parts: Sequence[DataPart], held_out: EncodedRows) -> None:
    """Check that no example of these parts is among the held-out rows: its answer would be known."""
    places = {question_text(row): row.place for row in held_out.rows}
    for part in parts:
        for example in load_examples(part):
            place = places.get(question_text(example))
            if place is not None:
                raise ValueError(
                    f"{part.section}.examples: {example.place} is among the held-out rows, at {place}; take"
                    " another example"
                )
