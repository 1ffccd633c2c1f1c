"""Reads files of JSON: a row a line, rows in a list, or such a list under a key."""

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
"""Records under their places."""


class LooseRecord(dict):
    """A record of JSON that only Python's reader takes; its texts may have lone surrogates."""


# Numbers keep the digits that they are written with: 0.00001 is not 1e-05 to who compares answers.
_RECORD = msgspec.json.Decoder(Record, float_hook=Decimal)
_DOCUMENT = msgspec.json.Decoder(float_hook=Decimal)
_LONGEST_INT = 4300
"""Digits of the longest number that Python reads as an int."""
_MESSAGE_KEYS = ("role", "from")


def read_json(path: str, key: str, example: str, columns: Collection[str]) -> Placed:
    """Each row of a file, under its place: `file:line`, or its number in a list.

    A file is lines of one object each, one list of objects, or one object with such a list under one of its
    keys. An object with one of `columns` is a row itself. `key` is what gave the path.

    Raises:
        ValueError: no such file, or one that is no JSON of these forms; `example` is a line.
    """
    return parse_json(read_contents(path, key, example), path, example, columns)


def parse_json(text: bytes, path: str, example: str, columns: Collection[str]) -> Placed:
    """Each row in the text of a file, as `read_json` gives it."""
    first = re.compile(rb"\s*").match(text).end()
    if text[first : first + 1] == b"[":
        return _listed(path, _decoded_list(path, text, example))
    lines = text.splitlines()
    document = _only_object(text, lines)
    if document is not None and not document.keys() & set(columns):
        name = _key_of_rows(path, document)
        if name is not None:
            return _listed(f"{path}: {name}", document[name])
    if document is not None:
        return iter([(_first_place(path, lines), document)])
    return _lines(path, lines, example)


def decode(text: bytes, decoder: msgspec.json.Decoder = _DOCUMENT) -> Any:
    """A value of JSON, also as Python writes it: with NaN, Infinity and lone surrogates.

    Raises:
        ValueError: it is none, or is nested too deeply.
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
    return int(digits) if len(digits) <= _LONGEST_INT else Decimal(digits)


def _lines(path: str, lines: Sequence[bytes], example: str) -> Placed:
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
    for number, row in enumerate(rows, start=1):
        yield f"{path}: row {number}", row


def _decoded_list(path: str, text: bytes, example: str) -> list[Record]:
    try:
        return msgspec.convert(decode(text), list[Record])
    except ValueError as error:  # msgspec's errors are ValueErrors
        raise ValueError(f"{path}: {error}; expected a list of rows like {example}") from None


def _only_object(text: bytes, lines: Sequence[bytes]) -> Record | None:
    """The object that the whole file is, over one line or many; None for a file of several lines of rows."""
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
    return f"{path}:{next(number for number, line in enumerate(lines, 1) if line.strip())}"


def _key_of_rows(path: str, document: Record) -> str | None:
    """Where an object that is no row itself has the rows.

    Raises:
        ValueError: in several places.
    """
    names = [name for name, value in document.items() if _is_rows(value)]
    if len(names) > 1:
        shown = ", ".join(f"`{name}`" for name in names)
        raise ValueError(
            f"{path}: there are several lists of rows, under the keys {shown}; write the rows of one of them"
            " to a file of their own"
        )
    return names[0] if names else None


def _is_rows(value: Any) -> bool:
    """Whether it is a list of objects, and these are no messages of a conversation."""
    if not isinstance(value, list) or not value:
        return False
    objects = all(isinstance(row, Mapping) for row in value)
    return objects and not any(key in value[0] for key in _MESSAGE_KEYS)
