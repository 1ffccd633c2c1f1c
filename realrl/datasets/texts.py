"""Converts texts and numbers of rows to the texts that are compared and trained on."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

_MOST_DIGITS = 1000
"""The most digits of a number; a verifier reads no longer answer."""


def text_of(value: Any) -> Any:
    """Return a number as text, and any other value unchanged."""
    if isinstance(value, float):
        return _number(Decimal(repr(value)))
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, int):
        return str(value)
    return value


def answers_of(solutions: Any) -> Any:
    """Return gold answers as a list of texts; a value that is no answer stays, for validation to reject."""
    if isinstance(solutions, list):
        return [_answer(solution) for solution in solutions]
    answer = _answer(solutions)
    return [answer] if isinstance(answer, str) else answer


def _answer(value: Any) -> Any:
    """Return the text of a gold answer; null and NaN, which no response can match, become empty."""
    is_nan = isinstance(value, (float, Decimal)) and value != value
    if value is None or is_nan:
        return ""
    return text_of(value)


def plain_number(value: Any) -> Any:
    """Return a `Decimal` as a float, and any other value unchanged."""
    return float(value) if isinstance(value, Decimal) else value


def without_surrogates(value: Any) -> Any:
    """Return the value with U+FFFD for each lone surrogate in its texts, also in lists and objects."""
    if isinstance(value, str):
        return _mended(value)
    if isinstance(value, list):
        return [without_surrogates(part) for part in value]
    if isinstance(value, dict):
        mended = {}
        for key, part in value.items():
            mended[without_surrogates(key)] = without_surrogates(part)
        return mended
    return value


def _mended(text: str) -> str:
    """Join surrogate pairs, and replace lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _number(value: Decimal) -> str:
    """Return a number without an exponent, which a verifier of mathematics would read as a product with e."""
    if not value.is_finite():
        return str(value)
    if abs(value.adjusted()) > _MOST_DIGITS:
        raise msgspec.ValidationError(
            f"{value} is a number of more than {_MOST_DIGITS} digits; give it as text"
        )
    # Zero has no sign in an answer.
    unsigned_zero = value if value else abs(value)
    return format(unsigned_zero, "f")
