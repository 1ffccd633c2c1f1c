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
    """Numbers for curves, to seven digits; None becomes NaN."""
    found = [math.nan if value is None else float(value) for value in values]
    too_large = any(abs(value) > _LARGEST_F32 for value in found if math.isfinite(value))
    return _packed("f64" if too_large else "f32", found)


def times(values: Iterable[float]) -> Packed:
    """Numbers of which every digit counts."""
    return _packed("f64", values)


def integers(values: Iterable[int]) -> Packed:
    """Whole numbers within 32 bits."""
    return _packed("i32", values)


def _packed(name: str, values: Iterable[float]) -> Packed:
    numbers = array(_TYPES[name], values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return {name: base64.b64encode(numbers.tobytes()).decode("ascii")}
