"""Reads rows of any kind from the sources that `data` names. Errors name a bad row by its place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import msgspec

from realrl.api.data import GYM_PREFIX, ROW_FIELDS, DataPart
from realrl.base.user_files import is_file_reference
from realrl.datasets.contents import check_is_file
from realrl.datasets.conversations import RESPONSES, Prompt, with_plain_messages, without_prompts
from realrl.datasets.fields import Names, at, columns_of, recognised
from realrl.datasets.gym import gym_records
from realrl.datasets.jsonl import LooseRecord, read_json
from realrl.datasets.metadata import metadata_of
from realrl.datasets.parquet import HUGGING_FACE, check_no_dataset, read_hugging_face, read_parquet
from realrl.datasets.sources import Source, examples_source, source_of
from realrl.datasets.sums import SUMS, sum_records
from realrl.datasets.texts import answers_of, plain_number, text_of, without_surrogates
from realrl.datasets.user_rows import user_records

OTHER_SOURCE = "data_source"
"""Another common name of the field `source`."""

Record = Mapping[str, Any]
Records = Iterator[tuple[str, Record]]
"""Places, each with its record."""


class Row(msgspec.Struct, kw_only=True):
    """The fields that rows of every kind have."""

    NAMES: ClassVar[Names] = {}
    """Our fields, each with its names in known datasets."""

    prompt: Prompt
    query_id: str = ""
    """The row's name in its source; empty in the source: the number of the row, from 1."""
    source: str = ""
    """The name of its data set; without sets, its field `source` or `data_source`, if that is a text."""
    difficulty: Any = None
    """A number, if rows are selected or ordered by it."""
    place: str = ""
    """Where the row comes from, as `file:line`."""
    nulls: dict[str, str] = {}
    """Our fields that are null in the source, each with its name there; null means absent."""


SomeRow = TypeVar("SomeRow", bound=Row)


def read_rows(
    part: DataPart,
    row_type: type[SomeRow],
    example: str,
    *,
    held_out: bool,
    has_metadata: bool = False,
) -> tuple[list[SomeRow], list[str]]:
    """Return the training or the held-out rows that `part` names, and notes on them for the user.

    `example` is a valid line of a file; errors quote it. With `has_metadata`, which is for types with the
    field `metadata`, rows keep all their further fields there.

    Raises:
        ValueError: a source that cannot be read or has no rows, or a row that is no `row_type`; the message
            names the row's place.
    """
    source = source_of(part, held_out=held_out)
    source = source._replace(has_metadata=has_metadata)
    notes: list[str] = []
    if source.path == SUMS:
        rows = _generated_rows(sum_records(held_out=held_out), row_type, example)
    elif source.path.startswith(GYM_PREFIX):
        rows = _generated_rows(gym_records(part.data, source.key, held_out=held_out), row_type, example)
    else:
        names = dict(row_type.NAMES)
        if part.data.solutions_path:
            # Solutions come from that file: a field of the rows must not be taken for them.
            names.pop("solutions", None)
        rows, notes = _rows_of(source, names, row_type, example)
    if part.name:
        for row in rows:
            row.source = part.name
    return rows, notes


def read_examples(part: DataPart, row_type: type[SomeRow], example: str) -> tuple[list[SomeRow], list[str]]:
    """Return the examples that `part` names, and notes on them. Their names of fields are recognised.

    Raises:
        ValueError: as `read_rows`.
    """
    path = part.data.examples or ""
    if path.startswith(GYM_PREFIX):
        raise ValueError(
            f"{part.section}.examples: expected a file of solved examples, got {path}, which has answers"
            " alone"
        )
    if path == SUMS:
        return _generated_rows(sum_records(held_out=False), row_type, example), []
    source = examples_source(part)
    return _rows_of(source, row_type.NAMES, row_type, example)


def _generated_rows(records: Records, row_type: type[SomeRow], example: str) -> list[SomeRow]:
    """Return generated records as rows; they have our names of fields."""
    rows = []
    for number, (place, record) in enumerate(records, 1):
        rows.append(_row(row_type, str(number), place, record, example))
    return rows


def _read(source: Source, names: Names, example: str) -> Records:
    """Return the records of a file or of a Hugging Face dataset, with the columns that may be needed."""
    key = source.key
    path = source.path
    columns = _needed_columns(source, names)
    columns_to_read = None if source.has_metadata else columns
    if path.startswith(HUGGING_FACE):
        return read_hugging_face(path, source.split, key, columns_to_read, source.commit)
    if is_file_reference(path):
        return user_records(path, key)
    if path.endswith(".parquet"):
        with suppress(OSError):  # reading the file reports the problem
            check_is_file(path, key)
        return read_parquet(path, key, columns_to_read)
    check_no_dataset(path, key)
    # A file with one object and a list of rows in it may well say where they come from.
    columns -= {"source", OTHER_SOURCE}
    return read_json(path, key, example, columns)


def _needed_columns(source: Source, names: Names) -> set[str]:
    """Return all columns that may hold one of our fields; a dotted name adds its outermost column."""
    columns = {*ROW_FIELDS, OTHER_SOURCE}
    columns.update(source.fields.values())
    columns.update(columns_of(names))
    outermost = [name.partition(".")[0] for name in columns]
    columns.update(outermost)
    return columns


def _rows_of(
    source: Source, names: Names, row_type: type[SomeRow], example: str
) -> tuple[list[SomeRow], list[str]]:
    """Return the rows of a source, and notes on them. Without `fields`, known names are recognised."""
    records = _read(source, names, example)
    first = next(records, None)
    if first is None:
        raise ValueError(f"{source.key}: {source.path}: the dataset is empty; expected lines like {example}")
    notes: list[str] = []
    if not source.fields:
        first_place, first_record = first
        source, notes = _recognised(source, names, first_place, first_record, example)
    rows = []
    mended_places = []
    for number, (place, record) in enumerate(itertools.chain([first], records), 1):
        mapped = _mapped(record, source, place)
        if source.has_metadata:
            mapped["metadata"] = metadata_of(record, mapped, source.fields, row_type.__struct_fields__)
        # Only a loose record can have lone surrogates: the others skip the search for them.
        if isinstance(record, LooseRecord):
            mended = without_surrogates(mapped)
            if mended != mapped:
                mended_places.append(place)
            mapped = mended
        default_id = f"{source.id_prefix}{number}"
        rows.append(_row(row_type, default_id, place, mapped, example, source.fields))
    if mended_places:
        notes.append(
            f"{source.path}: {len(mended_places)} of {len(rows)} rows have halves of characters (lone"
            f" surrogates), which became U+FFFD; the first is {mended_places[0]}"
        )
    return rows, notes + _note_of_ids(source, rows)


def _recognised(
    source: Source, names: Names, place: str, record: Record, example: str
) -> tuple[Source, list[str]]:
    """Return the source with the field names recognised in its first record, and a note of them.

    Raises:
        ValueError: no field of the record can be a prompt.
    """
    guess = recognised(record, names)
    _check_has_prompt(source, guess, place, record, example)
    if not guess:
        return source, []
    taken = []
    pairs = []
    for ours, theirs in guess.items():
        taken.append(f"`{theirs}` as `{ours}`")
        pairs.append(f"{ours}: {theirs}")
    option = f"{source.fields_key}={{{', '.join(pairs)}}}"
    note = f"{source.path}: takes {', '.join(taken)}, as {option} would say"
    recognised_source = source._replace(fields=guess)
    return recognised_source, [note]


def _check_has_prompt(
    source: Source, guess: Mapping[str, str], place: str, record: Record, example: str
) -> None:
    """Raise ValueError if only fields with foreign names are there, and none was recognised as a prompt."""
    for name in ("prompt", *RESPONSES):
        # A response may be a conversation, which has its prompt in it.
        if record.get(name) is not None or name in guess:
            return
    others = [f"`{name}`" for name in record if name not in ROW_FIELDS]
    if others:
        raise ValueError(
            f"{place}: no `prompt`, but {', '.join(others)}; say which of them it is,"
            f" as {source.fields_key}={{prompt: NAME, solutions: NAME}}; expected a line like {example}"
        )


def _note_of_ids(source: Source, rows: list[SomeRow]) -> list[str]:
    """Return a note if several rows have one `query_id`."""
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


def _mapped(record: Record, source: Source, place: str) -> dict[str, Any]:
    """Return the record under our names of fields; configured names win over fields of our name."""
    mapped = {name: record[name] for name in ROW_FIELDS if name in record}
    for name in source.fields:
        mapped[name] = _value_of(record, name, source, place)
    if "source" not in mapped and OTHER_SOURCE in record:
        mapped["source"] = record[OTHER_SOURCE]
    if "source" in mapped:
        label = text_of(mapped.pop("source"))
        # Many data sets have a field of this name that is no label, but a list or an object.
        if isinstance(label, str):
            mapped["source"] = label
    return mapped


def _value_of(record: Record, name: str, source: Source, place: str) -> Any:
    """Return the value that a record has for our field `name`."""
    theirs = source.fields[name]
    try:
        return at(record, theirs)
    except KeyError:
        raise ValueError(
            f"{place}: no field {theirs!r}; {source.fields_key}.{name} must name one of {', '.join(record)}"
        ) from None


def _row(
    row_type: type[SomeRow],
    default_id: str,
    place: str,
    record: Record,
    example: str,
    fields: Mapping[str, str] = MappingProxyType({}),
) -> SomeRow:
    """Return a record as a row; `default_id` is its `query_id` if it has none."""
    nulls = {name: fields.get(name, name) for name, value in record.items() if value is None}
    try:
        row = msgspec.convert(_tidied(record), row_type)
    except msgspec.ValidationError as error:
        reason = str(error)
        for ours, theirs in nulls.items():
            # A null counts as absent, so the error calls the field missing: say why.
            if f"field `{ours}`" in str(error):
                reason += f", as `{theirs}` is null"
        raise ValueError(f"{place}: {reason}; expected a line like {example}") from None
    row.place = place
    row.query_id = row.query_id or default_id
    row.nulls = nulls
    return row


def _tidied(record: Record) -> Record:
    """Return the record without nulls, with ids and solutions as text and responses without prompts."""
    found = {name: plain_number(value) for name, value in record.items() if value is not None}
    # From the record, not `found`: the text of a number keeps the digits that a float would lose.
    if "query_id" in found:
        found["query_id"] = text_of(record["query_id"])
    if "solutions" in found:
        found["solutions"] = answers_of(record["solutions"])
    return without_prompts(with_plain_messages(found))
