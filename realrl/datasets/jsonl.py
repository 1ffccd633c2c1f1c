"""Reads JSON files: one row per line, one list of rows, or an object with a list of rows under a key."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from realrl.datasets.contents import looks_like_table, no_table, read_contents

Record = dict[str, Any]
Placed = Iterator[tuple[str, Record]]
"""Places, each with its record."""


class LooseRecord(dict):
    """A record that only Python's JSON reader accepts; its texts may have lone surrogates."""


# Numbers keep their digits: the text of 0.00001 must not become 1e-05, as answers are compared by text.
_RECORD = msgspec.json.Decoder(Record, float_hook=Decimal)
_DOCUMENT = msgspec.json.Decoder(float_hook=Decimal)
_LIST = re.compile(rb"\s*\[")
"""The beginning of a file that is one list."""
_LONGEST_INT = 4300
"""Digits of the longest number that Python converts to an int."""
_MESSAGE_KEYS = ("role", "from")
"""Keys of messages: a list of these is a conversation, not rows."""


def read_json(path: str, key: str, example: str, columns: Collection[str]) -> Placed:
    """Return the rows of a file with their places: `file:line`, or the number in a list.

    A file has one object per line, one list of objects, or one object with such a list under one of its keys.
    An object with one of `columns` is a row itself. `key` is the config key that gives the path.

    Raises:
        ValueError: no such file, or no JSON of these forms; the message quotes `example`, a valid line.
    """
    return parse_json(read_contents(path, key, example), path, example, columns)


def parse_json(text: bytes, path: str, example: str, columns: Collection[str]) -> Placed:
    """Return the rows in the text of a file as `read_json` does.

    Raises:
        ValueError: the text is no JSON of these forms.
    """
    if _LIST.match(text):
        rows = _decoded_list(path, text, example)
        return _listed(path, rows)
    lines = text.splitlines()
    document = _only_object(text, lines)
    if document is None:
        return _lines(path, lines, example)
    is_row = bool(document.keys() & set(columns))
    if not is_row:
        name = _key_of_rows(path, document)
        if name is not None:
            return _listed(f"{path}: {name}", document[name])
    place = _first_place(path, lines)
    return iter([(place, document)])


def decode(text: bytes, decoder: msgspec.json.Decoder = _DOCUMENT) -> Any:
    """Decode a JSON value, also in Python's dialect: with NaN, Infinity and lone surrogates.

    Raises:
        ValueError: the text is no JSON, or is nested too deeply.
    """
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = error
    try:
        value = json.loads(text.decode(), parse_float=Decimal, parse_int=_whole, object_hook=LooseRecord)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:
        raise ValueError(str(problem)) from None
    if decoder is _RECORD and not isinstance(value, dict):
        raise ValueError(str(problem))
    return value


def _whole(digits: str) -> int | Decimal:
    """Return the value of a whole number of any length."""
    if len(digits) <= _LONGEST_INT:
        return int(digits)
    return Decimal(digits)


def _lines(path: str, lines: Sequence[bytes], example: str) -> Placed:
    """Yield the row on each line that is not blank."""
    is_first = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", decode(line, _RECORD)
        except ValueError as error:
            if is_first and looks_like_table(line):
                raise no_table(path, example) from None
            raise ValueError(f"{path}:{number}: {error}; expected a line like {example}") from None
        is_first = False


def _listed(path: str, rows: Sequence[Record]) -> Placed:
    """Yield the rows of a list."""
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _decoded_list(path: str, text: bytes, example: str) -> list[Record]:
    try:
        return msgspec.convert(decode(text), list[Record])
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise ValueError(f"{path}: {error}; expected a list of rows like {example}") from None


def _only_object(text: bytes, lines: Sequence[bytes]) -> Record | None:
    """Return the object that is the whole file, on one line or many; None for a file of several rows."""
    filled = (line for line in lines if line.strip())
    first = next(filled, b"")
    has_more = next(filled, None) is not None
    if has_more and _is_object(first):
        return None
    try:
        value = decode(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(decode(line), dict)
    except ValueError:
        return False


def _first_place(path: str, lines: Sequence[bytes]) -> str:
    """Return the place of the first line that is not blank."""
    number = 1
    while not lines[number - 1].strip():
        number += 1
    return f"{path}:{number}"


def _key_of_rows(path: str, document: Record) -> str | None:
    """Return the key under which an object has the rows; None if there are none.

    Raises:
        ValueError: several keys have rows.
    """
    names = [name for name, value in document.items() if _is_rows(value)]
    if len(names) > 1:
        shown = ", ".join(f"`{name}`" for name in names)
        raise ValueError(
            f"{path}: there are several lists of rows, under the keys {shown}; write the rows of one of them"
            " to a file of their own"
        )
    if not names:
        return None
    return names[0]


def _is_rows(value: Any) -> bool:
    """Return whether a value is a list of objects that are not the messages of a conversation."""
    if not isinstance(value, list) or not value:
        return False
    for row in value:
        if not isinstance(row, Mapping):
            return False
    is_message = any(key in value[0] for key in _MESSAGE_KEYS)
    return not is_message
