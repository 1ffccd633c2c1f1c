"""Reads rows of any kind from where `data` says, and says where a bad one stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from realrl.api.data import GYM_PREFIX, ROW_FIELDS, DataConfig
from realrl.datasets.gym import gym_records
from realrl.datasets.jsonl import read_json
from realrl.datasets.messages import Prompt, without_prompts
from realrl.datasets.sums import SUMS, sum_records
from realrl.datasets.tables import HUGGING_FACE, read_hugging_face, read_parquet

Record = Mapping[str, Any]
Records = Iterator[tuple[str, Record]]
"""Records under their places."""


class Row(msgspec.Struct, kw_only=True):
    """What rows of every kind have."""

    prompt: Prompt
    query_id: str = ""
    """Left out, the number of the row, from 1."""
    difficulty: float | None = None
    place: str = ""
    """Where it comes from, as `file:line`."""


SomeRow = TypeVar("SomeRow", bound=Row)


class _Source(NamedTuple):
    """One side of a `DataConfig`."""

    key: str
    path: str
    split: str
    fields: dict[str, str]
    fields_key: str


def read_rows(data: DataConfig, row_type: type[SomeRow], example: str, *, held_out: bool) -> list[SomeRow]:
    """The training rows that `data` names, or the held-out ones. `example` is a line of a file that would do.

    Raises:
        ValueError: a source that cannot be read or has no rows, or a row that is not of `row_type`, by its
            place.
    """
    source = _source(data, held_out=held_out)
    records = enumerate(_records(data, source, example, held_out=held_out), 1)
    rows = [_row(row_type, number, *record, example) for number, record in records]
    if not rows:
        raise ValueError(f"{source.key}: {source.path}: the dataset is empty; expected lines like {example}")
    return rows


def _source(data: DataConfig, *, held_out: bool) -> _Source:
    fields, fields_key = data.fields, "data.fields"
    if not held_out:
        return _Source("data.path", data.path, data.split, fields, fields_key)
    if data.eval_fields:
        fields, fields_key = data.eval_fields, "data.eval_fields"
    return _Source("data.eval_path", data.held_out_path, data.held_out_split, fields, fields_key)


def _records(data: DataConfig, source: _Source, example: str, *, held_out: bool) -> Records:
    """Of a side, by the names of our own."""
    if source.path == SUMS:
        return sum_records(held_out=held_out)
    if source.path.startswith(GYM_PREFIX):
        return gym_records(data, source.key, held_out=held_out)
    return ((place, _mapped(record, source, place)) for place, record in _read(source, example))


def _read(source: _Source, example: str) -> Records:
    key, path = source.key, source.path
    columns = {*ROW_FIELDS, *source.fields.values()}
    columns |= {name.partition(".")[0] for name in columns}
    if path.startswith(HUGGING_FACE):
        return read_hugging_face(path, source.split, key, columns)
    if path.endswith(".parquet"):
        return read_parquet(path, key, columns)
    return read_json(path, key, example)


def _mapped(record: Record, source: _Source, place: str) -> Record:
    named_alike = {name: record[name] for name in ROW_FIELDS if name in record}
    return named_alike | {name: _at(record, name, source, place) for name in source.fields}


def _at(record: Record, name: str, source: _Source, place: str) -> Any:
    """What a record has in place of our field `name`; a dotted name leads into what is nested."""
    theirs = source.fields[name]
    if theirs in record:
        return record[theirs]
    found: Any = record
    for part in theirs.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(
                f"{place}: no field {theirs!r}; {source.fields_key}.{name} must name one of"
                f" {', '.join(record)}"
            )
        found = found[part]
    return found


def _row(row_type: type[SomeRow], number: int, place: str, record: Record, example: str) -> SomeRow:
    try:
        row = msgspec.convert(_tidied(record), row_type)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}; expected a line like {example}") from None
    row.place, row.query_id = place, row.query_id or str(number)
    return row


def _tidied(record: Record) -> dict[str, Any]:
    """What is not null; ids as text, solutions as a list of texts, responses without prompts."""
    found = {name: value for name, value in record.items() if value is not None}
    if "query_id" in found:
        found["query_id"] = _text(found["query_id"])
    if "solutions" in found:
        solutions = found["solutions"]
        listed = [solutions] if isinstance(solutions, (str, int, float)) else solutions
        found["solutions"] = [_text(x) for x in listed] if isinstance(listed, list) else listed
    return without_prompts(found)


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) else value
