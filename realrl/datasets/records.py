"""Reads rows of any kind from where `data` says. A bad row is named by its place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from realrl.api.data import GYM_PREFIX, ROW_FIELDS, DataConfig
from realrl.datasets.contents import check_is_file
from realrl.datasets.conversations import RESPONSES, Prompt, with_plain_messages, without_prompts
from realrl.datasets.fields import Names, at, columns_of, recognised
from realrl.datasets.gym import gym_records
from realrl.datasets.jsonl import LooseRecord, read_json
from realrl.datasets.parquet import HUGGING_FACE, check_no_dataset, read_hugging_face, read_parquet
from realrl.datasets.sums import SUMS, sum_records
from realrl.datasets.texts import answers_of, plain_number, text_of, without_surrogates

Record = Mapping[str, Any]
Records = Iterator[tuple[str, Record]]
"""Records under their places."""


class Row(msgspec.Struct, kw_only=True):
    """What rows of every kind have."""

    NAMES: ClassVar[Names] = {}
    """Our fields that may have another name in known datasets."""

    prompt: Prompt
    query_id: str = ""
    """Left out, the number of the row, from 1."""
    difficulty: Any = None
    """A number, where rows are chosen by it."""
    place: str = ""
    """Where it comes from, as `file:line`."""
    nulls: dict[str, str] = {}
    """Those of our fields that are null there, which is as if they were left out, by their names there."""


SomeRow = TypeVar("SomeRow", bound=Row)


class _Source(NamedTuple):
    """One side of a `DataConfig`."""

    key: str
    path: str
    split: str
    commit: str | None
    fields: dict[str, str]
    fields_key: str


def read_rows(
    data: DataConfig, row_type: type[SomeRow], example: str, *, held_out: bool
) -> tuple[list[SomeRow], list[str]]:
    """The training rows that `data` names, or the held-out ones, and what a person should know of them.

    `example` is a line of a file that would do.

    Raises:
        ValueError: a source that cannot be read or has no rows, or a row that is not of `row_type`, by its
            place.
    """
    source = _source(data, held_out=held_out)
    if source.path == SUMS:
        records = sum_records(held_out=held_out)
    elif source.path.startswith(GYM_PREFIX):
        records = gym_records(data, source.key, held_out=held_out)
    else:
        names = row_type.NAMES
        if data.solutions_path:
            names = {ours: theirs for ours, theirs in names.items() if ours != "solutions"}
        return _rows_of(source, names, row_type, example)
    rows = [
        _row(row_type, number, place, record, example) for number, (place, record) in enumerate(records, 1)
    ]
    return rows, []


@contextmanager
def names_key(data: DataConfig, *, held_out: bool) -> Iterator[None]:
    """Have messages that begin with a place in a source begin with the key that gave the source."""
    source = _source(data, held_out=held_out)
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(source.path):
            raise
        raise ValueError(f"{source.key}: {error}") from None


def _source(data: DataConfig, *, held_out: bool) -> _Source:
    fields, fields_key = data.fields, "data.fields"
    if not held_out:
        return _Source("data.path", data.path, data.split, data.commit, fields, fields_key)
    if data.eval_fields:
        fields, fields_key = data.eval_fields, "data.eval_fields"
    path, split, commit = data.held_out_path, data.held_out_split, data.held_out_commit
    return _Source("data.eval_path", path, split, commit, fields, fields_key)


def _read(source: _Source, names: Names, example: str) -> Records:
    key, path = source.key, source.path
    columns = {*ROW_FIELDS, *source.fields.values(), *columns_of(names)}
    columns |= {name.partition(".")[0] for name in columns}
    if path.startswith(HUGGING_FACE):
        return read_hugging_face(path, source.split, key, columns, source.commit)
    if path.endswith(".parquet"):
        with suppress(OSError):  # reading it says what is wrong
            check_is_file(path, key)
        return read_parquet(path, key, columns)
    check_no_dataset(path, key)
    return read_json(path, key, example, columns)


def _rows_of(
    source: _Source, names: Names, row_type: type[SomeRow], example: str
) -> tuple[list[SomeRow], list[str]]:
    """Rows of a file, by the names of our own; those of known datasets are recognised."""
    records = _read(source, names, example)
    first = next(records, None)
    if first is None:
        raise ValueError(f"{source.key}: {source.path}: the dataset is empty; expected lines like {example}")
    notes = []
    if not source.fields:
        source, notes = _recognised(source, names, *first, example)
    rows, mended = [], []
    for number, (place, record) in enumerate(itertools.chain([first], records), 1):
        mapped = _mapped(record, source, place)
        if isinstance(record, LooseRecord):
            whole = without_surrogates(mapped)
            if whole != mapped:
                mended.append(place)
            mapped = whole
        rows.append(_row(row_type, number, place, mapped, example, source.fields))
    if mended:
        notes.append(
            f"{source.path}: {len(mended)} of {len(rows)} rows have halves of characters (lone surrogates),"
            f" which became U+FFFD; the first is {mended[0]}"
        )
    return rows, notes + _note_of_ids(source, rows)


def _recognised(
    source: _Source, names: Names, place: str, record: Record, example: str
) -> tuple[_Source, list[str]]:
    """The source with names of fields that its first record has, and a note of them.

    Raises:
        ValueError: nothing in the record could be a prompt.
    """
    guess = recognised(record, names)
    is_begun = any(record.get(name) is not None for name in ("prompt", *RESPONSES))
    others = [name for name in record if name not in ROW_FIELDS]
    if not is_begun and not guess.keys() & {"prompt", *RESPONSES} and others:
        raise ValueError(
            f"{place}: no `prompt`, but {', '.join(f'`{name}`' for name in others)}; say which of them it is,"
            f" as {source.fields_key}={{prompt: NAME, solutions: NAME}}; expected a line like {example}"
        )
    if not guess:
        return source, []
    taken = ", ".join(f"`{theirs}` as `{ours}`" for ours, theirs in guess.items())
    pairs = ", ".join(f"{ours}: {theirs}" for ours, theirs in guess.items())
    note = f"{source.path}: takes {taken}, as {source.fields_key}={{{pairs}}} would say"
    return source._replace(fields=guess), [note]


def _note_of_ids(source: _Source, rows: list[SomeRow]) -> list[str]:
    seen: set[str] = set()
    repeated = []
    for row in rows:
        if row.query_id in seen:
            repeated.append(row)
        seen.add(row.query_id)
    if not repeated:
        return []
    return [
        f"{source.path}: {len(repeated)} of {len(rows)} rows have the `query_id` of an earlier one; the first"
        f" is {repeated[0].place} ({repeated[0].query_id!r})"
    ]


def _mapped(record: Record, source: _Source, place: str) -> Record:
    named_alike = {name: record[name] for name in ROW_FIELDS if name in record}
    return named_alike | {name: _at(record, name, source, place) for name in source.fields}


def _at(record: Record, name: str, source: _Source, place: str) -> Any:
    """What a record has in place of our field `name`."""
    theirs = source.fields[name]
    try:
        return at(record, theirs)
    except KeyError:
        raise ValueError(
            f"{place}: no field {theirs!r}; {source.fields_key}.{name} must name one of {', '.join(record)}"
        ) from None


def _row(
    row_type: type[SomeRow],
    number: int,
    place: str,
    record: Record,
    example: str,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> SomeRow:
    nulls = {name: fields.get(name, name) for name, value in record.items() if value is None}
    try:
        row = msgspec.convert(_tidied(record), row_type)
    except msgspec.ValidationError as error:
        said = [
            f", as `{theirs}` is null" for ours, theirs in nulls.items() if f"field `{ours}`" in str(error)
        ]
        raise ValueError(f"{place}: {error}{''.join(said)}; expected a line like {example}") from None
    row.place, row.query_id, row.nulls = place, row.query_id or str(number), nulls
    return row


def _tidied(record: Record) -> Record:
    """What is not null; ids as text, solutions as a list of texts, responses without prompts."""
    found = {name: plain_number(value) for name, value in record.items() if value is not None}
    if "query_id" in found:
        found["query_id"] = text_of(record["query_id"])
    if "solutions" in found:
        found["solutions"] = answers_of(record["solutions"])
    return without_prompts(with_plain_messages(found))
