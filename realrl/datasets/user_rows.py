"""Rows that a function of a user's own makes, named as `path/to/file.py:function`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from realrl.base.user_files import describe_error, load_function_from_file

FORM = "f(), which returns rows, each a mapping as {'prompt': ..., 'solutions': [...]}"


def user_records(path: str, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield what the function gives: the place of each row, and the row.

    Every process of a run calls the function, so it must give the same rows each time.

    Raises:
        ValueError: the function cannot be loaded, raises, or gives something else than rows.
    """
    function = load_function_from_file(path, setting=key, num_arguments=0, form=FORM)
    for number, row in enumerate(_rows(function, path, key), 1):
        place = f"{path}: row {number}"
        if not isinstance(row, Mapping):
            raise ValueError(f"{place}: expected a mapping, got a {type(row).__name__}")
        yield place, row


def _rows(function: Any, path: str, key: str) -> Iterator[Any]:
    try:
        rows = function()
        if not isinstance(rows, Iterable) or isinstance(rows, (str, bytes, Mapping)):
            raise ValueError(f"{key}: {path} gave a {type(rows).__name__}, expected {FORM}")
        yield from rows
    except (KeyboardInterrupt, GeneratorExit, ValueError):
        raise
    except BaseException as error:  # whatever a user's file raises, SystemExit of a script included
        raise ValueError(f"{key}: {path} raised {describe_error(error)}; mend it") from error
