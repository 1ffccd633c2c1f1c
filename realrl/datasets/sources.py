"""Names where rows come from: the training rows, the held-out rows, or the examples of a config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from realrl.api.data import DataPart


class Source(NamedTuple):
    """One side of a `DataConfig`: the training or the held-out rows; or its examples."""

    key: str
    """The config key that gives the path."""
    path: str
    split: str
    commit: str | None
    fields: dict[str, str]
    fields_key: str
    """The config key that gives `fields`."""
    has_metadata: bool = False
    """Whether the rows keep the fields that are not theirs."""
    id_prefix: str = ""
    """What comes before the number of a row without a `query_id`."""


def source_of(part: DataPart, *, held_out: bool) -> Source:
    """Return the source of one side; held-out rows have the training rows' fields unless given their own."""
    data = part.data
    if not held_out:
        return Source(
            key=f"{part.section}.path",
            path=data.path,
            split=data.split,
            commit=data.commit,
            fields=data.fields,
            fields_key=f"{part.section}.fields",
            # Rows of several sets may have the same numbers.
            id_prefix=f"{part.name}/" if part.name else "",
        )
    has_own_fields = bool(data.eval_fields)
    is_whole = part.section == "data"
    key = "data.eval_path" if is_whole else f"{part.section}.path"
    fields_key = "data.fields" if is_whole else f"{part.section}.fields"
    if is_whole and has_own_fields:
        fields_key = "data.eval_fields"
    return Source(
        key=key,
        path=data.held_out_path,
        split=data.held_out_split,
        commit=data.held_out_commit,
        fields=data.eval_fields if has_own_fields else data.fields,
        fields_key=fields_key,
    )


def examples_source(part: DataPart) -> Source:
    """Return the source of the examples. They have no configured fields: their names are recognised."""
    data = part.data
    path = data.examples or ""
    # A commit is of the dataset that it was given for.
    commit = data.commit if path == data.path else None
    return Source(
        key=f"{part.section}.examples",
        path=path,
        split=data.split,
        commit=commit,
        fields={},
        fields_key=f"{part.section}.fields",
    )


@contextmanager
def names_key(part: DataPart, *, held_out: bool) -> Iterator[None]:
    """Prefix errors that begin with a place in the source with the config key of the source."""
    source = source_of(part, held_out=held_out)
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(source.path):
            raise
        raise ValueError(f"{source.key}: {error}") from None
