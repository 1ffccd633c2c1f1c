"""Numbers as base64 of little-endian arrays: small in the file, and decoded at once by a browser."""

from __future__ import annotations

import base64
import math
import sys
from array import array
from collections.abc import Iterable

Packed = dict[str, str]
"""`{type: base64}`; the types are those of the page's `unpack`."""

_TYPES = {"f32": "f", "f64": "d", "i32": "i"}
_LARGEST_F32 = 3.4e38


def floats(values: Iterable[float | None]) -> Packed:
    """Pack numbers for curves, with seven digits; None becomes NaN."""
    numbers = []
    kind = "f32"
    for value in values:
        number = math.nan if value is None else float(value)
        numbers.append(number)
        if math.isfinite(number) and abs(number) > _LARGEST_F32:
            kind = "f64"
    return _packed(kind, numbers)


def times(values: Iterable[float]) -> Packed:
    """Pack numbers with all of their digits."""
    return _packed("f64", values)


def integers(values: Iterable[int]) -> Packed:
    """Pack whole numbers of at most 32 bits."""
    return _packed("i32", values)


def _packed(name: str, values: Iterable[float]) -> Packed:
    """Return numbers as little-endian bytes of a type, in base64."""
    numbers = array(_TYPES[name], values)
    if sys.byteorder == "big":
        numbers.byteswap()
    encoded = base64.b64encode(numbers.tobytes())
    return {name: encoded.decode("ascii")}
