"""Reads rows of any kind from where `data` says, and says where a bad one stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from realrl.api.config import DataConfig
from realrl.datasets.jsonl import read_jsonl
from realrl.datasets.messages import Prompt
from realrl.datasets.sums import SUMS, sum_records

Record = Mapping[str, Any]

FIELDS = ("query_id", "prompt", "solutions", "response", "chosen", "rejected")
"""All that rows have of their source."""


class Row(msgspec.Struct, kw_only=True):
    """What rows of every kind have."""

    prompt: Prompt
    query_id: str = ""
    """Left out, the number of the row, from 1."""
    place: str = ""
    """Where it comes from, as `file:line`."""


SomeRow = TypeVar("SomeRow", bound=Row)


def read_rows(data: DataConfig, row_type: type[SomeRow], example: str, *, held_out: bool) -> list[SomeRow]:
    """The training rows that `data` names, or the held-out ones. `example` is a line of a file that would do.

    Raises:
        ValueError: a source that cannot be read or has no rows, or a row that is not of `row_type`, by its
            place.
    """
    key, path = ("data.eval_path", data.held_out_path) if held_out else ("data.path", data.path)
    records = _records(path, key, example, held_out=held_out)
    rows = [_row(row_type, number, *record, example) for number, record in enumerate(records, 1)]
    if not rows:
        raise ValueError(f"{key}: {path}: the dataset is empty; expected lines like {example}")
    return rows


def _records(path: str, key: str, example: str, *, held_out: bool) -> Iterator[tuple[str, Record]]:
    """Each record of a source, under its place."""
    return sum_records(held_out=held_out) if path == SUMS else read_jsonl(path, key, example)


def _row(row_type: type[SomeRow], number: int, place: str, record: Record, example: str) -> SomeRow:
    try:
        row = msgspec.convert(_tidied(record), row_type)
    except msgspec.ValidationError as error:
        raise ValueError(f"{place}: {error}; expected a line like {example}") from None
    row.place, row.query_id = place, row.query_id or str(number)
    return row


def _tidied(record: Record) -> dict[str, Any]:
    """Its fields that are not null, ids as text, and solutions as a list of texts whatever the source has."""
    found = {name: record[name] for name in FIELDS if record.get(name) is not None}
    if "query_id" in found:
        found["query_id"] = _text(found["query_id"])
    if "solutions" in found:
        solutions = found["solutions"]
        listed = [solutions] if isinstance(solutions, (str, int, float)) else solutions
        found["solutions"] = [_text(x) for x in listed] if isinstance(listed, list) else listed
    return found


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) else value
