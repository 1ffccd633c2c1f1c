"""The fields of a row that the program does not read itself, kept for reward functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import msgspec


def metadata_of(
    record: Mapping[str, Any], mapped: Mapping[str, Any], fields: Mapping[str, str], read: Collection[str]
) -> dict[str, Any]:
    """Return a record's fields that are not among those that a row reads, as JSON values.

    `mapped` is the record under our names, `fields` says where these are, and `read` are the names that the
    row reads. A field that has several values, of which the row reads one, stays whole. Fields without a form
    in JSON, such as an image, are left out.
    """
    taken = set()
    for ours in mapped:
        # The row's source may be replaced by the name of its set, and then only the field itself has it.
        if ours in read and ours != "source":
            theirs = fields.get(ours, ours)
            taken.add(theirs)
    kept = {}
    for name, value in record.items():
        if name in taken:
            continue
        try:
            kept[str(name)] = _json_value(value)
        except TypeError:
            # A user's function may put any object into a row.
            continue
    return kept


def _json_value(value: Any) -> Any:
    """Return a value as JSON has it: a number as an int or a float, a date as text.

    Raises:
        TypeError: JSON has no form for it.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, Mapping):
        return {str(name): _json_value(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(part) for part in value]
    if isinstance(value, bytes):
        raise TypeError("bytes are no text")
    return msgspec.to_builtins(value)
